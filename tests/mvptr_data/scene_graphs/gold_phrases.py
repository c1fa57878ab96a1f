"""The gold examples of the phrase specification: captions with all of their phrases, and the alternatives it accepts."""

from __future__ import annotations

#: One caption a paragraph: the text, then its phrases; elements are parted by commas, phrases by semicolons.
TABLE = """
A man riding a big wave on top of a surfboard.
    wave, big; man, ride, wave; man, ride on top of, surfboard
Two young boys in red shirts are sitting at a wooden table.
    boy, two; boy, young; shirt, red; table, wooden; boy, in, shirt; boy, sit at, table
A group of people standing on a city street next to a bus.
    street, city; group, of, people; group, stand on, street; group, stand next to, bus
The dog is black and white.
    dog, black; dog, white
A plate of food with broccoli and a fork.
    plate, of, food; plate, with, broccoli; plate, with, fork
A woman is smiling.
    woman, smile
The piano is played by a woman.
    woman, play, piano
A car is parked on the side of the road.
    car, park on, side; side, of, road
A car parked in front of a brick building.
    building, brick; car, park in front of, building
A man and a woman are riding horses.
    man, ride, horse; woman, ride, horse
A black and white cat laying on a bed.
    cat, black; cat, white; cat, lay on, bed
A girl who is wearing a pink dress holds her umbrella.
    dress, pink; girl, wear, dress; girl, hold, umbrella; girl, have, umbrella
Several teddy bears sitting in front of a window.
    bear, several; bear, teddy; bear, sit in front of, window
There is a dog running through the grass.
    dog, run through, grass
A boy's bike is leaning against the wall.
    boy, have, bike; bike, lean against, wall
A large double-decker bus driving down the street.
    bus, large; bus, double-decker; bus, drive down, street
Three giraffes and two zebras stand in a field.
    giraffe, three; zebra, two; giraffe, stand in, field; zebra, stand in, field
A baseball player swinging a bat at a ball.
    player, baseball; player, swing, bat; player, swing at, ball
The man is a baseball player.
    man, player; player, baseball
A couple of people walking down a street.
    people, couple; people, walk down, street
A bunch of green bananas hanging from a tree.
    banana, bunch; banana, green; banana, hang from, tree
A man in a green shirt is standing up in the crowd.
    shirt, green; man, in, shirt; man, stand up in, crowd
A man with glasses is holding a cell phone in his hand.
    phone, cell; man, with, glass; man, hold, phone; man, hold in, hand; man, have, hand
A young woman in a white dress playing tennis.
    woman, young; dress, white; woman, in, dress; woman, play, tennis
The fire hydrant is red.
    hydrant, fire; hydrant, red
A traffic light hanging over a busy street.
    light, traffic; street, busy; light, hang over, street
Many people are flying kites at the beach.
    people, many; people, fly, kite; people, fly at, beach
A stop sign next to a tall tree.
    sign, stop; tree, tall; sign, next to, tree
A clean kitchen with a stove, a sink and a refrigerator.
    kitchen, clean; kitchen, with, stove; kitchen, with, sink; kitchen, with, refrigerator
A little girl holding a stuffed animal.
    girl, little; animal, stuffed; girl, hold, animal
A cake that is topped with fresh strawberries.
    strawberry, fresh; cake, top with, strawberry
Five people are in a boat on the water.
    people, five; people, in, boat; boat, on, water
A herd of sheep grazing in a grassy field.
    field, grassy; herd, of, sheep; herd, graze in, field
A train traveling over a bridge surrounded by trees.
    train, travel over, bridge; bridge, surround by, tree
"""

#: Phrases that may stand in for others: number of the caption -> (phrases, their alternatives).
ALTERNATIVES = {
    3: {
        ("group", "stand on", "street"): ("people", "stand on", "street"),
        ("group", "stand next to", "bus"): ("people", "stand next to", "bus"),
    },
    33: {("herd", "graze in", "field"): ("sheep", "graze in", "field")},
}


def read_gold() -> list[tuple[str, set[tuple[str, ...]]]]:
    """(caption, phrases) of all examples, the first being number 1."""
    lines = [line for line in TABLE.splitlines() if line]
    return [
        (caption, {tuple(element.strip() for element in phrase.split(",")) for phrase in phrases.split(";")})
        for caption, phrases in zip(lines[::2], lines[1::2], strict=True)
    ]


def accept_alternatives(number: int, phrases: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The phrases with accepted alternatives replaced by what the table prints."""
    printed = {alternative: phrase for phrase, alternative in ALTERNATIVES.get(number, {}).items()}
    return {printed.get(phrase, phrase) for phrase in phrases}
