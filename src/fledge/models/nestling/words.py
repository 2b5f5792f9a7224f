"""The words that nestling's texts are made of: names, places, birds, things, numbers, days and pairs."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


FIRST_NAMES = listed(
    """Ada Agnes Alba Alma Amos Anna Arlo Asa Astrid Basil Beatrix Ben Bess Birgit Bruno Cara Carl Cecil Clara Cleo Cora
    Dag Dana Dara Della Dora Edda Edgar Edith Elena Eli Ella Elsa Emil Enid Erik Esme Eva Ezra Faye Fern Finn Flora
    Frida Gail Gemma Greta Gus Hana Hazel Heidi Helga Hugo Ida Ines Ingrid Iris Ivan Ivo Jana Jasper Joan Jonas Jude
    Judith Jules Kai Karin Kit Lars Leila Lena Leo Lida Linus Lotta Lucy Mabel Magnus Mara Marta Max Mila Mina Mira
    Mona Nadia Nell Nia Nils Nina Nora Odette Olga Oscar Otto Owen Petra Phoebe Piet Quinn Rafe Rhea Rita Rosa Rufus
    Ruth Sadie Saul Selma Silas Simon Sofia Sten Stella Sven Tessa Theo Thora Tilda Toby Tom Ugo Ulla Una Vera Viola
    Wanda Will Wren Yara Yves Zara Zeno Zoe"""
)

SURNAME_STARTS = listed(
    """Ald Ash Bar Beck Birk Brad Bran Bux Cald Car Cole Cran Dal Dray Dun Elder Fair Fal Farn Garn Gil Grim Hal Har
    Hazel Hen Holt Kel Ken Lam Lang Lind Lor Mar Mel Mor Nor Pem Pen Quill Ram Red Rud Sel Shaw Sil Stan Tal Thorn Tor
    Ul Var Wal War Win Yar"""
)
SURNAME_ENDS = listed(
    """acre berg bourne by combe croft dale den ell er field gard grove hart holm house ing kin land ler low man mond
    more ner ridge row sen son stone strom ton ward wood worth"""
)

TOWN_STARTS = listed(
    """Alder Amber Apple Ast Barley Bel Birch Black Bram Bright Brook Chal Cherry Clay Clover Cold Corn Crow Deep Dun
    East Elm Fal Fen Fern Fox Glen Gold Gorse Grass Green Grey Hay Heath Hollow Ivy Kings Lark Lin Long Low Maple Marsh
    Mill Moss Nether North Oak Old Otter Over Pebble Pine Reed Rook Rose Rush Salt Sand Sedge Silver South Spring Stone
    Stow Summer Swan Thorn Up Wester White Wild Willow Winter Wood"""
)
TOWN_ENDS = listed(
    """barrow bay beck bridge brook burn bury chester cliff combe cote cross dean down fell field ford gate ham haven
    hill hurst leigh ley mead mere mouth ness pool port sea shaw stead stoke stow thorpe ton vale wick worth"""
)

BIRDS = {
    "wren": "wrens", "robin": "robins", "finch": "finches", "thrush": "thrushes", "goose": "geese", "heron": "herons",
    "owl": "owls", "crow": "crows", "rook": "rooks", "lark": "larks", "swan": "swans", "duck": "ducks",
    "gull": "gulls", "tern": "terns", "plover": "plovers", "snipe": "snipes", "stork": "storks", "crane": "cranes",
    "kite": "kites", "hawk": "hawks", "falcon": "falcons", "eagle": "eagles", "magpie": "magpies", "jay": "jays",
    "starling": "starlings", "sparrow": "sparrows", "swallow": "swallows", "swift": "swifts", "martin": "martins",
    "cuckoo": "cuckoos", "dove": "doves", "pigeon": "pigeons", "coot": "coots", "grebe": "grebes", "warbler":
    "warblers", "nightjar": "nightjars", "dipper": "dippers", "linnet": "linnets", "puffin": "puffins",
    "pipit": "pipits", "bunting": "buntings", "siskin": "siskins", "curlew": "curlews", "partridge": "partridges",
}  # fmt: skip

THINGS = {
    "apple": "apples", "pear": "pears", "plum": "plums", "cherry": "cherries", "berry": "berries", "cake": "cakes",
    "loaf": "loaves", "leaf": "leaves", "box": "boxes", "book": "books", "cup": "cups", "dish": "dishes",
    "knife": "knives", "lamp": "lamps", "chair": "chairs", "coat": "coats", "hat": "hats", "shoe": "shoes",
    "boat": "boats", "bag": "bags", "key": "keys", "coin": "coins", "shell": "shells", "stone": "stones",
    "button": "buttons", "brush": "brushes", "ball": "balls", "drum": "drums", "flower": "flowers", "seed": "seeds",
    "egg": "eggs", "candle": "candles", "basket": "baskets", "bottle": "bottles", "letter": "letters",
    "picture": "pictures", "watch": "watches", "glass": "glasses", "bench": "benches", "toy": "toys",
}  # fmt: skip

ANIMALS = {
    "cat": "cats", "dog": "dogs", "fox": "foxes", "mouse": "mice", "sheep": "sheep", "horse": "horses", "cow": "cows",
    "pig": "pigs", "hare": "hares", "otter": "otters", "badger": "badgers", "pony": "ponies", "wolf": "wolves",
    "deer": "deer", "frog": "frogs", "bee": "bees", "hen": "hens", "goat": "goats", "mole": "moles", "bear": "bears",
}  # fmt: skip

KINDS = {"bird": BIRDS, "thing": THINGS, "animal": ANIMALS}

NUMBERS = listed(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty"""
)
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("January February March April May June July August September October November December")
COLOURS = listed("red blue green yellow brown black white grey pink purple orange silver golden")
TRADES = listed(
    """baker miller potter weaver farmer gardener teacher doctor nurse painter sailor smith tailor carpenter cook
    fisher printer clerk singer mason driver postman shepherd librarian"""
)
WEATHER = listed("sunny rainy windy cloudy foggy snowy stormy warm cold mild dry wet")
FEELINGS = listed("happy sad tired proud glad calm angry afraid curious hungry surprised thankful")
PLACES = listed("river wood lake hill mill church bridge school market station garden harbour meadow pond barn road")
LIKED = listed(
    "music bread tea honey cheese soup stories walking swimming rain snow maps chess dancing gardening reading"
)

OPPOSITES = {
    "big": "small", "hot": "cold", "old": "young", "early": "late", "long": "short", "fast": "slow", "high": "low",
    "wet": "dry", "full": "empty", "open": "closed", "dark": "light", "hard": "soft", "heavy": "light", "loud": "quiet",
    "near": "far", "clean": "dirty", "happy": "sad", "thick": "thin", "wide": "narrow", "strong": "weak", "up": "down",
    "left": "right", "first": "last", "day": "night", "summer": "winter", "north": "south", "east": "west",
    "buy": "sell", "push": "pull", "yes": "no", "in": "out", "before": "after",
}  # fmt: skip

PAST = {
    "walk": "walked", "see": "saw", "go": "went", "eat": "ate", "find": "found", "sing": "sang", "run": "ran",
    "write": "wrote", "read": "read", "take": "took", "give": "gave", "make": "made", "bake": "baked", "count":
    "counted", "hear": "heard", "fly": "flew", "swim": "swam", "come": "came", "keep": "kept", "sell": "sold",
    "buy": "bought", "bring": "brought", "think": "thought", "carry": "carried", "plant": "planted", "draw": "drew",
    "grow": "grew", "open": "opened", "close": "closed", "sleep": "slept", "speak": "spoke", "teach": "taught",
}  # fmt: skip

SYLLABLES = listed(
    """ba be bi bo da de di do fa fe fi fo ga ge go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe pi po
    ra re ri ro sa se si so ta te ti to va ve vi vo wa we za ze zo"""
)

COMMON = listed(
    """about above across action again against almost along already also although always among amount another answer any
    area around ask attention away back because become begin behind believe better between both bring build business
    call change check child choose city class clear collect common company complete condition consider contain continue
    control correct could country course create current decide describe detail develop different direction discuss
    during each easy education effect either energy english enough environment even event every exact example exercise
    explain express false family feel few figure final find follow form from function future general generate give good
    government great group guess handle happen health help here history house however human idea identify image
    important improve include increase information input instruction interest into invite island issue join journey
    just kind knowledge language large later learn least less level life like list listen little local long machine
    main make many material matter mean measure member method might model moment money month most mother move much
    music must name nation nature necessary need network never next note nothing number object observe often only
    opinion option order other output over own page paragraph part people perfect perhaps person phrase point political
    popular position possible power present problem process product programme protect provide public purpose question
    quick quite quote rather reach reason receive recipe record reduce region relation remember report require research
    resource response result return right science season second sentence separate series service several should simple
    since situation skill social society solution some sound source space special standard start state still story
    structure student study subject such suggest summary support sure system table take talk technology text than that
    their them then there these they thing think this those though thought through time title today together too topic
    toward translate travel true turn type under understand unit until upon use usual value various very view visit
    voice wait want water way week well what when where which while who whole why will wish with within without woman
    word work world would write year yesterday yet young your zone"""
)
