"""`hourllava cache`: the memories of watched videos."""
