"""Trust: who is who, and how traffic between sidecars is secured."""
