"""The classes of the landscape assignment's maps, in the order of their numbers, 0 to 28."""

CLASSES = tuple(
    "mountain sky water sea rock tree earth hill river sand land building grass plant person boat waterfall wall pier "
    "path lake bridge field road railing fence ship house other".split()
)
