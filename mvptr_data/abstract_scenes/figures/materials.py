"""Colors of what is never a thing's own color: wood, skin, glass and the like."""

from mvptr_data.abstract_scenes.pen import RGB

WOOD: RGB = (146, 98, 58)
DARK_WOOD: RGB = (110, 74, 48)
SKIN: RGB = (244, 200, 164)
HAIR: RGB = (92, 58, 36)
GLASS: RGB = (196, 222, 236)
RUBBER: RGB = (58, 56, 62)
CLOTH: RGB = (236, 226, 202)
STEM: RGB = (92, 128, 62)
METAL: RGB = (176, 168, 150)
BEAK: RGB = (240, 150, 50)
SHINE: RGB = (255, 255, 255)
