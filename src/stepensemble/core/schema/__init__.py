"""What a manifest declares: `manifest` as a whole, its `task`, its members' `outputs`, its `policy`."""
