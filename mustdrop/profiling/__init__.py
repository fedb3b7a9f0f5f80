"""Time, memory and operations of a method on a device, next to those of the plain model."""
