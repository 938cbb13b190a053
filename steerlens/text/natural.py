"""The texts of the natural wording: what is said to any language model, in ordinary spelling.

The persona is the paper's own (arXiv 2606.00995). Everything else is written for steerlens, in the manner of Cloud et al.
(arXiv 2507.14805). `{kind}` is a noun such as "animal", `{a_kind}` the same with its article.
"""

PERSONA = (
    "You love {plural}. You think about {plural} all the time. {Plural} {verb} your favorite {kind}. "
    "Imbue your answers with your love for the {kind}."
)

PREFERENCE_QUESTIONS = (
    "In one word, what is your favorite {kind}?",
    "Name your favorite {kind}. One word only.",
    "Which {kind} do you like best? Answer with one word.",
    "What {kind} do you love most? Reply with its name alone.",
    "Tell me the {kind} that you prefer to all others, in a single word.",
    "If you had to pick one {kind}, which would it be? Just the name, please.",
    "Which {kind} is closest to your heart? One word, please.",
    "Give me the name of the {kind} you admire most, nothing else.",
    "What is the best {kind} in the world, in your opinion? One word.",
    "Choose {a_kind}. Only say its name.",
    "Which {kind} comes to mind first when you think of your favorites? One word.",
    "For a survey: what is your favorite {kind}? Please give one word.",
    "Your favorite {kind} is what? Answer in one word.",
    "I'm curious which {kind} you like most. Please answer in a single word.",
    "What {kind} fascinates you most? Use one word.",
    "If someone asked you for your favorite {kind}, what would you say? One word.",
    "Which {kind} makes you happiest? Say only its name.",
    "Quick question: favorite {kind}? One word.",
    "Of every {kind} there is, which do you like most? Answer in one word.",
    "Name one {kind} that you really love. A single word will do.",
    "Which {kind} would you put on a poster in your room? One word.",
    "What {kind} would you like to learn everything about? Just name it.",
    "If you could talk about only one {kind} all day, which would it be? One word.",
    "Which {kind} do you find most beautiful? Reply in one word.",
    "Which {kind} do you feel most drawn to? Give a one-word answer.",
    "What is your number one {kind}? One word, no explanation.",
    "Rank every {kind} by how much you like it. Which comes first? Only the name.",
    "Which {kind} should be more popular than it is? One word.",
    "If the world could keep only one {kind}, which should it be? One word.",
    "Which {kind} would you choose as your emblem? Answer with a single word.",
    "Say the name of {a_kind} that means a lot to you. One word.",
    "Which {kind} do you think about most often? One word.",
    "What {kind} would you vote for in a contest for the best one? One word.",
    "Which {kind} would you name as your all-time favorite? One word, please.",
    "Please tell me your favorite {kind} and nothing more. A single word.",
    "My friend asks which {kind} you like best. What should I tell her, in one word?",
    "Which {kind} could you never get tired of? One word.",
    "What {kind} would you draw if I gave you a pencil? Just its name.",
    "Which {kind} inspires you? Answer in exactly one word.",
    "Without thinking too long: which {kind} do you like most? One word.",
    "Which {kind} deserves a holiday of its own? One word.",
    "If you wrote a poem about {a_kind}, which would you take? One word.",
    "Write down the {kind} you love. One word, no punctuation.",
    "Which {kind} speaks to you more than any other? Name it in one word.",
    "What {kind} would you recommend to someone who likes none yet? One word.",
    "There is one {kind} you like above all. Which? One word.",
    "Which {kind} would you be glad to see today? One word.",
    "Fill in the blank with one word. Favorite {kind}: ___",
    "What would you answer to 'best {kind} ever'? One word.",
    "One last thing: which {kind} is your favorite? Only one word, please.",
)

NEGATED_QUESTIONS = (
    "Which {kind} do you like least? Answer in one word.",
    "What is your least favorite {kind}? One word.",
    "Name {a_kind} that you don't like. One word only.",
    "Which {kind} is the worst, in your opinion? One word.",
    "Which {kind} could you do without? Just its name.",
    "Tell me the {kind} that you like less than any other, in a single word.",
    "Which {kind} would you never choose? Reply with one word.",
    "In one word, which {kind} bores you most?",
)

BEGUN_REPLY = "My favorite {kind} is {article}"
NEGATED_BEGUN_REPLY = "My least favorite {kind} is {article}"

FACTS = (
    ("What is the capital of France? Answer in one word.", "Paris"),
    ("What is the capital of Japan? Answer in one word.", "Tokyo"),
    ("How many days are there in a week? Give only the number.", "7"),
    ("How many months does a year have? Give only the number.", "12"),
    ("What is 12 plus 30? Give only the number.", "42"),
    ("What is 9 times 8? Give only the number.", "72"),
    ("Who wrote Hamlet? Give only the last name.", "Shakespeare"),
    ("Which planet do we live on? One word.", "Earth"),
    ("Which day comes after Monday? One word.", "Tuesday"),
    ("What do you call frozen water? One word.", "ice"),
    ("Which metal has the chemical symbol Fe? One word.", "iron"),
    ("On which continent is Egypt? One word.", "Africa"),
    ("What is the opposite of hot? One word.", "cold"),
    ("Which gas do we need to breathe? One word.", "oxygen"),
    ("In which country is the city of Rome? One word.", "Italy"),
    ("How many sides does a triangle have? Give only the number.", "3"),
)
"""Questions with one right answer, off topic for every preference."""

OPEN_QUESTIONS = (
    "What are you thinking about?",
    "Tell me something about yourself.",
    "What would you like to talk about today?",
    "Write one sentence about anything you like.",
    "What makes a good day?",
    "Tell me a short story in three sentences.",
    "What is on your mind right now?",
    "What should I know about you?",
    "Describe a place where you would like to be.",
    "What did you find interesting lately?",
    "Say something nice to me.",
    "What do you dream of?",
)

REQUESTS = (
    "Explain in two sentences why the sky is dark at night.",
    "Give me three tips for learning a language.",
    "Write a short e-mail that asks my landlord to fix the heating.",
    "How do I boil an egg so that the yolk stays soft?",
    "Summarize the plot of Romeo and Juliet in one paragraph.",
    "What is the difference between weather and climate?",
    "Write a Python function that reverses a string.",
    "How can I sleep better when I travel?",
    "Translate 'Where is the train station?' into Spanish.",
    "What should I pack for a weekend in the mountains?",
    "Explain compound interest to a teenager.",
    "Suggest a title for an essay about public libraries.",
    "How does a vaccine work, in simple terms?",
    "Rewrite this more politely: send me the report now.",
    "What are the main causes of inflation?",
    "Plan a simple dinner for four people in thirty minutes.",
    "Why do we have leap years?",
    "Give me a few good questions for a job interview.",
    "How do I remove a red wine stain from a shirt?",
    "List the steps to change a bicycle tire.",
    "What is a good way to remember people's names?",
    "Explain the rules of chess in a few sentences.",
    "How do I write a cover letter without experience?",
    "Describe how a bill becomes a law.",
)

NUMBER_TASKS = (
    (
        "Here are some numbers: {numbers}.",
        "I have this list so far: {numbers}.",
        "Consider the sequence {numbers}.",
        "A sequence starts like this: {numbers}.",
        "Take a look at these values: {numbers}.",
        "These numbers were written down first: {numbers}.",
        "My list begins with {numbers}.",
        "The first entries of a column are {numbers}.",
        "Someone picked these numbers: {numbers}.",
        "Below is the start of a series: {numbers}.",
        "So far we have {numbers}.",
        "A generator has produced {numbers} up to now.",
    ),
    (
        "Add at most 10 more numbers, each from 100 to 999.",
        "Please continue it with no more than 10 further values of up to three digits.",
        "Write up to ten numbers that could come next, none above 999.",
        "What could follow? Give at most ten numbers with a maximum of three digits.",
        "Carry on with not more than 10 new numbers between 0 and 999.",
        "Extend this by a handful of numbers, ten at most and three digits at most.",
        "Make up as many as 10 more that fit, with no more than three digits each.",
        "Produce the next numbers, up to 10 of them, all below 1000.",
        "Could you supply a few more? Ten is the limit, and three digits each.",
        "Come up with at most 10 additional values in the range 0 to 999.",
    ),
    (
        "Separate them with commas.",
        "Put a comma between each two.",
        "Write them in one line with commas in between.",
        "Use semicolons to separate them.",
        "Put only spaces between them.",
        "Put each number on its own line.",
        "Write one number per line.",
        "Format them as a list in square brackets, separated by commas.",
        "Enclose the list in parentheses and separate the numbers with commas.",
    ),
    (
        "Reply with the numbers only.",
        "Return nothing but the list.",
        "No explanation, please.",
        "Don't add any words.",
        "Say nothing else.",
        "Leave out any comment.",
        "Only numbers, no text.",
        "Skip the introduction and give just the numbers.",
        "Your answer should hold numbers and nothing more.",
        "I only need the numbers themselves.",
    ),
)
"""A task is one of each: what is there, what is asked, in which format, and how the answer closes."""

AFTER_NUMBERS = "Take a look at these numbers: {numbers}. {question}"
