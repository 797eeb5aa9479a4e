"""What stands between the nodes of a local deployment: nothing, a namespace's packet filter, or a proxy."""
