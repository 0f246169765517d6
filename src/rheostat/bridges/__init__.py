"""Wire protocols of other systems, translated to and from the service; served only where they are asked for."""
