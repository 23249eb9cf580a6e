"""Films on their way in: from the wire to the disk, and from there to the endpoint."""
