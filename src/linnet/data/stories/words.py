"""The words of the stories: plain lists, and the entries that a story's slots can hold.

Words are set apart by commas; `3* ` before a word gives it the weight 3. No word of a list begins another
word of the same list, and no word is at once two of animal, thing and food.
"""

from __future__ import annotations

WORDS: dict[str, str] = {
    # People
    "trait": "2* kind, 2* brave, 2* happy, clever, quiet, shy, funny, gentle, cheerful, curious, polite, merry, "
    "lively, silly, jolly, sweet, calm, bold, smart, proud, patient, eager, careful, friendly",
    "glad": "2* happy, 2* glad, 2* proud, joyful, cheerful, pleased, thankful, excited, merry, calm, lucky, "
    "hopeful, grateful, jolly",
    "upset": "2* sad, 2* worried, upset, lonely, scared, afraid, unhappy, nervous, cross, gloomy, tired, grumpy, "
    "puzzled, alone",
    "manner": "softly, quietly, slowly, quickly, happily, gently, calmly, bravely, carefully, proudly, eagerly, "
    "gladly, politely, kindly, merrily, boldly, shyly, loudly, sweetly, patiently",
    "sadly": "sadly, softly, quietly, slowly, gently, shyly, loudly, bravely",
    "moved": "2* walked, 2* ran, hurried, skipped, hopped, raced, marched, wandered, strolled, rushed, tiptoed, "
    "danced, jogged, dashed, went",
    "came": "2* came, crept, trotted, hopped, jumped, stepped, danced, ran, skipped, walked",
    "said": "2* said, called, answered, whispered, replied, laughed, sang",
    "told": "2* said, whispered, called, answered, replied",
    "wept": "wept, cried, sobbed, sighed, sniffed, moaned",
    "cried": "2* cried, said, sobbed, sighed, whispered, called",
    "saw": "2* saw, met, passed, spotted, found, watched",
    "petname": "Pip, Dot, Coco, Rusty, Fluffy, Pepper, Lucky, Patch, Ginger, Honey, Teddy, Buddy, Jumbo, Mango, "
    "Poppy, Ziggy",
    "game": "tag, catch, hide and seek, hopscotch, chess, marbles, cards, pirates, knights, doctors, school, house",
    # Animals and things
    "nature": "2* little, tiny, old, young, fat, thin, sleepy, hungry, lazy, friendly, funny, shy, noisy, clever, "
    "gentle, busy, silly, plump, quick, proud, muddy, grumpy, jolly, brown, gray, white",
    "quality": "2* new, 2* old, big, little, shiny, pretty, lovely, fine, tiny, funny, smooth, lucky, strange, dusty",
    "hue": "2* red, 2* blue, green, yellow, pink, purple, orange, white, black, brown, golden, silver",
    "number": "2* two, 2* three, four, five, six, seven, eight, nine, ten",
    "taste": "big, little, warm, sweet, fresh, ripe, tasty, juicy, soft, small, fine, huge",
    "baked": "big, little, warm, sweet, fresh, tasty, soft, small, fine, huge",
    "vessel": "box, bag, basket, bucket, jar, bowl, tin, sack, cup, chest, pot, pan",
    # Where and when
    "weather": "2* sunny, 2* warm, 2* cold, windy, cloudy, foggy, hot, cool, bright, gray, misty, quiet, lovely, "
    "fine, chilly, mild, rainy, snowy, clear",
    "night_air": "cold, dark, warm, quiet, windy, cloudy, foggy, cool, chilly, mild, misty, rainy, snowy, clear",
    "weekday": "Monday, Tuesday, Wednesday, Thursday, Friday, 2* Saturday, 2* Sunday",
    "part": "2* morning, 2* afternoon, evening",
    "meal": "breakfast, lunch, dinner, supper, tea",
    "prep": "2* under, 2* behind, beside, near, next to, in front of",
    "spot": "2* tree, bush, rock, log, fence, gate, bench, wall, cart, well, shed, hedge, stump, nest, ladder, "
    "barrel, sign, swing, slide, tent, bridge, statue",
    "look": "old, big, tall, little, green, red, white, broken, round, long, dark, wet, black, yellow",
    "furniture": "2* bed, table, chair, sofa, stove, clock, piano, desk, lamp, door, window, shelf",
    "skill": "reading, singing, painting, drawing, dancing, cooking, baking, swimming, climbing, jumping, running, "
    "fishing, skating, sewing, sailing, writing, juggling, rowing",
    "noise": "strange, loud, soft, funny, low, sad, high, sharp, odd",
}

GIRLS = (
    "2* Lily, 2* Mia, 2* Anna, Ella, Lucy, Sara, Emma, Zoe, Ruby, Nora, Ivy, Kate, Maya, Eva, Clara, Amy, Jane, "
    "Molly, Grace, Tina"
)
BOYS = (
    "2* Tom, 2* Ben, 2* Max, Sam, Tim, Jack, Leo, Finn, Noah, Oscar, Hugo, Luke, Adam, Peter, Paul, Harry, Theo, "
    "Owen, Felix, Fred"
)
WOMEN = "4* Mom, 2* Grandma, Nana, Aunt May, Aunt Sue"
MEN = "4* Dad, 2* Grandpa, Uncle Jim, Uncle Bob"

# A plural is written out where it is not the word and "s".
ANIMALS = (
    "2* cat, 2* dog, 2* rabbit, 2* bird, fox=foxes, owl, hen, duck, frog, goat, pig, cow, mouse=mice, bear, lamb, "
    "pony=ponies, horse, squirrel, turtle, kitten, puppy=puppies, goose=geese, swan, donkey, mole, otter, robin, "
    "badger, deer=deer, snail, monkey, toad, ant, crow"
)
THINGS = (
    "2* ball, 2* kite, 2* boat, 2* hat, drum, scarf=scarves, doll, truck, train, book, bell, coat, cap, ring, key, "
    "blanket, button, crayon, whistle, wagon, robot, mitten, lantern, flute, ribbon, brush=brushes, pencil, spoon, "
    "coin, teapot, sled, sock, shoe, boot, umbrella, flag"
)
FOODS = (
    "2* apple, 2* cookie, pear, plum, peach=peaches, bun, muffin, carrot, egg, banana, nut, biscuit, "
    "cherry=cherries, fig, waffle, melon, lemon, grape, pretzel, potato=potatoes, pumpkin, radish=radishes, turnip, "
    "pickle, pancake, berry=berries, olive, tomato=tomatoes"
)
DISHES = "2* cake, 2* pie, tart, pudding, soup, stew, salad, pizza"
COLORS = WORDS["hue"]

# A place, and how one is there.
PLACES = (
    "2* at the park, 2* at the beach, at the farm, at the lake, by the river, at the market, at the zoo, "
    "at the library, by the barn, at the mill, at the harbor, at the bakery, at the playground, at the castle, "
    "by the stable, at the museum, in the garden, in the meadow, in the woods, on the hill, by the pond, "
    "in the village, by the stream, in the field, at the station, on the island"
)
