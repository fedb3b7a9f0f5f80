"""Layers at the same relative depth of another model. Knows nothing about configs."""

SAME_DEPTH = 0.1  # relative difference up to which a model is as deep as the published one


def layer_at_depth(layer: int, depth: int, here: int) -> int:
    """Layer at the same relative depth.

    A model whose depth differs by at most a tenth gets the layer as it is published: 30 layers have
    room for those of 32, and scaling would move FastV from K = 2 to K = 1.

    Args:
        layer: Layer of a decoder with ``depth`` layers.
        depth: Number of layers that the layer was chosen for.
        here: Number of layers of the model.
    """
    return layer if abs(here - depth) <= SAME_DEPTH * depth else layer * here // depth
