"""Random words, values, names: what conversations are filled with.

Invariant: the vocabulary for training and for evaluation is disjoint. Listed words belong to one list or the other; an
invented word belongs to the evaluation when its letters sum to a multiple of 8, and to training otherwise.
"""

STARTS = "b c d f g h j k l m n p r s t v w z br cr dr gr pl st tr sh th fl".split()
VOWELS = "a e i o u a e i o u ai ea ou".split()
ENDS = ["", "", "", "n", "r", "s", "l", "t", "m", "lin", "ville", "ford", "son", "ia"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

TRAIN = {
    "verbs": "get find show fetch read list check send make create open close start stop add remove delete update search look count measure book order cancel move copy rename print scan test build clean sort merge load save play pause lock unlock turn set call ring mark tag share post plan compute convert query run lookup schedule write draw pick choose rate track report watch".split(),
    "nouns": "time price stock news mail note file user room ticket train flight hotel route song film book photo video light door car bike order invoice report table chart score rank task event meeting alarm timer recipe word rate code page site server disk job queue log team city country river weather forecast currency engine dinner lunch train bus taxi tax salary loan car house garden tree plant animal bird fish doctor nurse teacher student lesson exam grade story poem joke game match player coach league goal movie actor series episode channel radio podcast artist album concert party wedding birthday gift shop store market cart product review rating coupon discount refund delivery truck ship boat port bridge road street map station ticket gate seat menu dish pizza coffee tea bread email message contact address distance traffic temperature population balance account payment calendar reminder parcel package exchange schedule profile document folder image sensor signal battery".split(),
    "strings": "city name place user title text word topic id file path item query date day room code symbol key target source label message person station product subject location country region email address category filename url keyword team destination origin town street language author owner genre brand format phone company website".split(),
    "numbers": "count amount number size level limit days hours minutes page year degrees volume percent temperature total price weight distance age height width speed".split(),
    "values": "Paris London Berlin Rome Madrid Vienna Oslo Athens Cairo Tokyo Boston Chicago Dublin Munich Sydney Delhi Anna Peter Maria John Laura Thomas Emma Lucas red green blue yellow monday tuesday friday apple bread coffee water house garden music summer winter report holiday budget dinner lunch kitchen office school library market bridge castle forest mountain river island tomorrow today noon hello world Milan Lyon Turin Geneva Budapest Krakow Moscow Istanbul Dubai Mumbai Seoul Shanghai Denver Miami Dallas Austin Houston Phoenix Atlanta David Sarah Daniel Julia Mark Laura Paul Nina Robert Clara Simon white black pink brown grey silver gold tuesday saturday sunday january march april june july pasta rice cake soup salad milk cheese wine football tennis chess piano guitar dog cat horse table chair window door phone laptop camera New York San Francisco Los Angeles".split(),
}
HELD = {
    "verbs": "inspect translate rotate freeze paint weigh borrow hire grind polish estimate reserve".split(),
    "nouns": "planet molecule pillow lantern tunnel orchard violin tide warehouse comet kettle ladder museum harbour helmet carpet".split(),
    # Half of the parameter names are common ones that training has too; the rest are new.
    "strings": "artist colour animal fruit device airport village hotel city location name date title topic user country".split(),
    "numbers": "quantity rounds capacity depth amount count days year".split(),
    "values": "Lisbon Porto Helsinki Nairobi Lima Bergen Toronto Seattle Zurich Kyoto Manila Quito Oxford Naples Alice Bob Sofia Hans Ingrid Mateo Yusuf Chloe purple orange wednesday banana violin pencil hammer museum harbour desert breakfast".split(),
}


class Words:
    """Draws words of one split, 'train' or 'held', from a random.Random."""

    def __init__(self, rng, split):
        self.rng, self.held = rng, split == "held"
        self.lists = HELD if self.held else TRAIN

    def invented(self, low=1, high=2):
        """A pronounceable word of low..high syllables, lower case."""
        r = self.rng
        for _ in range(1000):
            word = "".join(r.choice(STARTS) + r.choice(VOWELS) for _ in range(r.randint(low, high))) + r.choice(ENDS)
            if len(word) > 2 and (sum(map(ord, word)) % 8 == 0) == self.held:
                return word
        raise RuntimeError("no word found")

    def scramble(self):
        """Letters without sense."""
        r = self.rng
        return "".join(r.choice(LETTERS) for _ in range(r.randint(3, 8)))

    def code(self):
        r = self.rng
        return "".join(r.choice(SIGNS) for _ in range(r.randint(2, 6)))

    def value(self):
        """A string that somebody could want as an argument."""
        r, kind = self.rng, self.rng.random()
        if kind < 0.30:
            return self.invented().capitalize()
        if kind < 0.70:
            return r.choice(self.lists["values"])
        if kind < 0.80:
            return self.invented()
        if kind < 0.90:
            return self.invented(1, 2).capitalize() + " " + (self.invented(1, 2).capitalize() if r.random() < 0.5 else r.choice(self.lists["values"]))
        if kind < 0.93:
            return self.code()
        if kind < 0.95:
            return self.scramble()
        if kind < 0.98:
            return self.invented(1, 2) + r.choice([".txt", ".pdf", "-1", "_2", ".com", "/a", ".md"])
        return f"{self.invented(1, 2)}@{self.invented(1, 2)}.com"

    def number(self):
        r, kind = self.rng, self.rng.random()
        if kind < 0.35:
            return r.randint(0, 9)
        if kind < 0.75:
            return r.randint(10, 99)
        return r.randint(100, 9999)

    def pick(self, kind, invented):
        """One of a list, or, with probability `invented`, an invented word."""
        return self.invented(1, 2) if self.rng.random() < invented else self.rng.choice(self.lists[kind])
