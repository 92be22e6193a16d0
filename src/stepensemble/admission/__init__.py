"""Nothing is published that was not tried.

- `gate`: let nothing through that is not what the manifest says
- `screening`: ask every member; `checks` and `feasibility` judge members and ensemble
- `addition`: make a member of a model file, and have the gate examine the manifest as it would be
- `document`: a JSON file changed as little as possible
"""
