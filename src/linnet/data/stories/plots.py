"""The sentences of the stories, in the notation that `templates` describes."""

from __future__ import annotations

FRAME = """
story:
    {opening} {likes} / {plot} / {home} {night}
plot:
    {lost}
    {share}
    {rescue}
    {learn}
    {quarrel}
    {birthday}
    {sound}
    {storm}
    {treasure}

opening:
    Once upon a time there [was|lived] {+virtue.a} and {+grace.word} {+hero.named}.
    There once was {a trait} {+hero.named}, who lived {where}.
    In {a quality} {hue} [house|tent|hut|boat] [by|near] the [sea|road|lake|hill|mill] lived {a trait} {+hero.named}.
    {+hero.name} was {+virtue.a}, {+grace.word} {hero.kind} with {a quality} {hue} {object}.
    Once {a trait} {+hero.named} lived with {a nature} {creature} and {number} {nature} {creatures}.
likes:
    {hero.He} [loved|liked|enjoyed] {+treat.many}, {nature} {creatures} and {hue} {objects}.
    {Who} had {a nature} {creature} [named|called] {petname} and {a quality} {vessel} [full of|for] {+treat.many}.
    {hero.His} [favorite|dearest|finest] things were {+treat.many}, {number} {hue} {objects} and {a nature} {creature}.
    Every {weekday} {who} [ate|had] {number} {+treat.many} and played {game} with {a nature} {creature}.
    With {petname} the {creature} {who} [shared|ate] {number} {taste} {+treat.many} every {weekday} {part}.

Who:
    {hero.name}
    3* {hero.He}
who:
    {hero.name}
    3* {hero.he}
the_toy:
    the {color.name} {toy.name}
    the {toy.name}
day:
    3* One {weather} {weekday} {part},
    On {a weather} {weekday} {part},
    [Early|Late] on {a weather} {weekday},
beings:
    2* {a nature} {creature}
    2* {number} {nature} {creatures}
    {a creature} in {a hue} [hat|coat|cap|scarf|boot|wagon|boat|train]
seen:
    3* {a nature} {creature}
    3* {number} {nature} {creatures}
    3* {a quality} {object}
    3* {number} {hue} {objects}
    {a creature} [eating|selling|holding] {a taste} {food}
    {a creature} in {a hue} [hat|coat|cap|scarf|boot|wagon|boat|train]
where:
    {prep} the [{spot}|{look} {spot}]
indoors:
    {prep} the [{furniture}|{look} {furniture}]
soon:
    Soon
    Then
    Later
    Just then
    After that
    At last
    Suddenly
on_the_way:
    On the way {who} {saw} {seen}, {seen} and {seen}.
    {Who} {saw} {seen} and {seen} {where}.
    There {who} {saw} {seen} and played {game} with {beings}.
    First {who} {saw} {seen}, and then {seen}.
    {beings_first} [waved|called|sang] to {hero.him} {where}.
beings_first:
    {A nature} {creature} and {beings}
    {A creature} and {number} {nature} {creatures}
oh:
    Oh no!
    Oh dear!
    Dear me!
    Poor me!
    Help!
    What now?
sorrow:
    "{oh} I am so {upset}," {who} {cried} {sadly}.
    {Who} [felt|was] {upset} and sat [down|alone|crying] {where}.
    Poor {hero.name} [felt|was] {upset} and {wept} {sadly}.
comfort:
    "Do not be {upset}," {told}
    "Why are you so {upset}?" asked
    "Are you {upset}?" asked

home:
    At home {+elder.name} [gave|handed|brought|showed] {hero.him} {number} {taste} {treat.many} and {seen}.
    For {meal} {+elder.name} [made|had|found] {number} {taste} {treat.many}, {+side.many} and {a taste} {+extra.name}.
    Then {who} {moved} home and ate {number} {taste} {treat.many} and {a taste} {+side.name} for {meal}.
    {Who} {moved} home {manner} and shared {a taste} {treat.name} with {beings}.
night:
    That night {who} [dreamed|thought] of {seen}, {seen} and {seen}.
    {Who} went to bed [{manner}|feeling {glad}] and dreamed of {seen} and {seen}.
    [After that|Ever after|For weeks] {who} was {+virtue.word} and {+grace.word}, even on {weather} {weekday} {part}s.
    "Good night," {told} {hero.name} to {beings} and {beings}, and {hero.he} fell asleep {indoors}.
"""

PLOTS = """
lost:
    {day} {lost_start} {on_the_way} {lost_gone} / {lost_search} {sorrow} {lost_help} {lost_found}
lost_start:
    {who} [took|carried|brought] {a quality} {+color.name} {+toy.name} to the {+place.name}.
    {who} {moved} to the {+place.name} with {a quality} {+color.name} {+toy.name}.
    {+elder.name} gave {hero.name} {a quality} {+color.name} {+toy.name}, and {hero.he} {moved} to the {+place.name}.
lost_gone:
    But [then|soon|now] {the_toy} was [gone|lost|not there]!
    While {who} played {game} with {beings}, {the_toy} [got lost|rolled away|blew away].
    When {beings} and {beings} [came|ran|danced] by, {the_toy} [got lost|rolled away|blew away].
lost_search:
    {Who} [looked|searched|hunted] {where}, {where} and {where}.
    First {who} [looked|searched] {where} and found {seen}. Then {who} looked {where}.
    Was it {where}? No, there was only {seen}. Was it {where}? No.
    {hero.He} asked {beings} and {beings}, and {manner} {hero.he} [looked|searched] {where}.
lost_help:
    {soon} {a nature} {+animal.name} {came} by with {seen}. "[Come with|Follow] me," it {told} {manner}.
    {comfort} {a nature} {+animal.name} {manner}. "I [know|see|remember] where it is."
    {A nature} {+animal.name} {came} by {manner}. "[Did|Will] you look {where}?" it asked.
lost_found:
    The {animal.name} {moved} {manner} to the {spot}, and there was {the_toy}, next to {seen}!
    They looked {where}, and there [was|lay|stood] {the_toy} with {seen}!
    {Who} gave it {number} {taste} {foods}, and {manner} it [gave|brought|handed] back {the_toy}.
    It {moved} away and {came} back {manner} with {the_toy} and {seen}.

share:
    {day} {share_start} {on_the_way} / {share_meet} {share_why} {share_offer} {share_eat}
share_start:
    {who} [packed|took|carried] {number} {treat.many} and {a quality} {object} and {moved} to the {+place.name}.
    {who} {moved} to the {+place.name} with {number} {treat.many} and {a taste} {+side.name}.
    {+elder.name} gave {hero.name} {number} {treat.many} in {a hue} {vessel} to take to the {+place.name}.
share_meet:
    {place.At} {who} [met|visited|saw] {a trait} {+friend.named} with {seen}.
    There [sat|stood] {a trait} {+friend.named} with {a quality} {hue} {object}.
    {soon} {who} [met|visited|saw] {a trait} {+friend.named} {where}.
share_why:
    {friend.He} looked {upset}. "{A nature} {creature} [ate|took|has] my {taste} {foods}," {friend.he} {cried}.
    "I [dropped|lost|left] my {taste} {food} {where}," {friend.he} {cried} {sadly}.
    "I have only {a taste} {food} for {meal}," {friend.he} {cried}. {friend.He} [was|felt|looked] {upset}.
share_offer:
    "Please [have|take|try] {number} of my {treat.many}," {told} {hero.name} {manner}.
    {Who} [smiled|nodded] {manner} and gave {friend.him} {number} {taste} {treat.many} and {a quality} {object}.
    {comfort} {hero.name}. "I have {number} {taste} {treat.many} and {a taste} {+side.name} for you."
share_eat:
    So they sat {where} and ate {treat.many}, {taste} {+side.many} and {a taste} {+extra.name}.
    Then {friend.name} gave {hero.name} {a quality} {hue} {object}, and they played {game} {where}.
    {soon} they shared {a taste} {food} with {beings} and played {game}.
    They played {game} with {beings} and {beings} and felt {glad}.

rescue:
    {day} {rescue_start} {rescue_hear} {rescue_ask} / {rescue_elder} {rescue_out} {rescue_thanks}
rescue_start:
    {who} {moved} to the {+place.name} to [look for|visit|find|draw] {seen}.
    {who} played {game} {+place.at} with {a nature} {creature} and {a quality} {object}.
    {who} [sat|stood|danced] {+place.at} with {seen} and {number} {treat.many}.
rescue_hear:
    {soon} {who} heard {a noise} [cry|noise]. {A nature} {+animal.name} was [stuck|caught] {where}!
    {Who} {saw} {seen} and {a nature} {+animal.name}. The {animal.name} was [stuck|caught] {where}!
rescue_ask:
    "Help me," it {cried} {sadly}. "I came to [see|find|visit] {seen} and {seen}."
    "I am {upset}," it {cried}. "I [want|need] to see my {number} {nature} {creatures}."
    "{oh}" it {cried}. "I [wanted|saw] {a taste} {+side.name}, {number} {+extra.many} and {a quality} {object}."
rescue_elder:
    So {who} {moved} [home|off|away] to [get|find|call] {+elder.name}.
    Then {who} called {+elder.name}, who {came} {manner} from the {look} {spot}.
    {Who} saw {+elder.name} {where} and called {manner}.
rescue_out:
    {elder.He} brought {a quality} {hue} {object} and {a quality} {object}, and {manner} it {came} out.
    {elder.name} and {hero.name} [pulled|pushed] {manner}, and out came the {animal.name} with {seen}.
    With {a hue} {object} and {number} {taste} {foods}, {elder.name} {manner} [got|pulled] it out.
rescue_thanks:
    "Thank you," {said} the {animal.name} {manner}. "You are so {+virtue.word} and {+grace.word}!"
    The {animal.name} [was|felt] {glad} and gave them {number} {hue} {objects} and {seen}.
    {Who} and the {animal.name} played {game} with {beings} {where}.

learn:
    {day} {learn_start} {learn_want} / {learn_try} {learn_cry} {learn_help} {learn_end}
learn_start:
    {who} [saw|met|visited] {a trait} {+friend.named} {+place.at} with {seen}.
    {who} {moved} to the {+place.name} and [saw|met] {a trait} {+friend.named} with {seen}.
learn_want:
    {friend.name} was so good at {+skill.name} that {beings} and {beings} came to [watch|help|see].
    "I am good at {+skill.name}," {told} {friend.name} {manner}. "[Do you want to|Will you] try it {where}?"
    "On {weekday} I won {a quality} {hue} {object} for {+skill.name}," {told} {friend.name} {manner}.
learn_try:
    {Who} tried it {manner}, but [fell over|bumped into|ran into] {seen}.
    {Who} tried it {where}, but {beings} and {a nature} {creature} [laughed|ran away] {manner}.
    For {number} [days|hours] {who} tried, and {hero.he} [fell over|bumped into|ran into] {seen} and {seen}.
learn_cry:
    "I will never be good at {skill.name}," {who} {cried} {sadly}.
    "{oh} I am too {upset} for {skill.name}," {who} {cried} {sadly}.
    {Who} [felt|was] {upset}, sat down {where} and {wept} {sadly}.
learn_help:
    {comfort} {friend.name}. "On {weekday} I [fell over|bumped into|ran into] {a nature} {creature}!"
    "Try it {manner}," {told} {friend.name}, "and think of {beings} and {seen}."
    {friend.name} gave {hero.him} {a taste} {food} and {seen}. "Now try it {manner}!"
learn_end:
    {hero.He} tried again {manner}. By {weekday} {part} {who} was good at {skill.name} too!
    After {number} [days|weeks|hours] {who} won {a quality} {hue} {object} and {number} {objects} for {skill.name}.
    So {who} tried again, and this time {beings} and {beings} [cheered|clapped|danced] {manner}.

quarrel:
    {day} {quarrel_start} {quarrel_mine} / {quarrel_wise} {quarrel_sorry} {quarrel_end}
quarrel_start:
    {hero.name} and {a trait} {+friend.named} found {a quality} {+color.name} {+toy.name} {where}.
    {who} [met|saw] {a trait} {+friend.named}, and {+place.at} they found {a quality} {+color.name} {+toy.name}.
quarrel_mine:
    "It is mine!" {cried} {hero.name} {sadly}. "I [saw|found|had] it first!" {cried} {friend.name}.
    "I [want|need] {the_toy} for my {nature} {creature}!" {cried} {friend.name} {sadly}.
    {hero.name} wanted to give it to {beings}, and {friend.name} wanted to give it to {beings}.
quarrel_wise:
    {comfort} {a nature} {+animal.name}. "There are {number} {hue} {objects} {where}."
    {soon} {a nature} {+animal.name} {came} by. "I have {seen}, and I share with {beings}," it {told}.
    {friend.name} {moved} away, and {hero.name} [was|felt] {upset}. Then {a nature} {+animal.name} {came} by {manner}.
quarrel_sorry:
    "I am sorry," {cried} {hero.name} {sadly}. "Take {the_toy} on {weekday} {part}."
    {Who} [smiled|nodded] {manner} and gave {friend.name} {a taste} {+side.name} and {number} {taste} {+extra.many}.
    "Let us share," {told} {hero.name} {manner}, and {friend.name} came back with {seen}.
quarrel_end:
    {friend.name} [was|felt] {glad}, and they played {game} with the {animal.name} and {beings}.
    Now they use {the_toy} to play {game} with {beings} and {beings}.
    They gave {the_toy} to {beings} and the {animal.name}, and played {game} {where}.

birthday:
    {day} {birthday_start} {birthday_mix} {birthday_crash} / {birthday_cry} {birthday_help} {birthday_end}
birthday_start:
    it was {+elder.name}'s birthday, and {who} {manner} [made|baked|cooked] {a baked} {+dish.name}.
    {who} [made|baked|cooked] {a baked} {+dish.name} for {+elder.name} and {beings}.
birthday_mix:
    {Who} put {number} {treat.many}, {number} {+side.many} and {a taste} {+extra.name} into {a quality} {vessel}.
    In {a quality} {hue} {vessel} {who} mixed {treat.many}, {number} {+side.many} and {a taste} {+extra.name}.
    It [needed|had] {number} {taste} {treat.many}, {number} {+side.many} and {a taste} {+extra.name}.
birthday_crash:
    But {a nature} {+animal.name} {came} in and [ate it|took it|broke it|sat on it] {manner}.
    Then {a nature} {+animal.name} and {beings} {came} in, and the {dish.name} [fell|landed|rolled] {indoors}.
birthday_cry:
    "{oh} My {baked} {dish.name}!" {cried} {hero.name} {sadly}.
    {Who} [felt|was] {upset} and [hid|sat|cried] {indoors}.
    Poor {hero.name} [felt|was] {upset} and {wept} {sadly}.
birthday_help:
    The {animal.name} was {upset} too and [brought|found|gave {hero.him}] {number} {foods} and {seen}.
    {comfort} {a trait} {+friend.named}, who had {number} {taste} {foods} and {a quality} {vessel}.
birthday_end:
    So they made {a baked} {dish.name}, and {elder.name} gave {hero.him} {seen} and {a quality} {hue} {object}.
    {elder.name} [was|felt] {glad}. "What {a baked} {dish.name}!" {elder.he} {said} {manner}. "I have {seen} for you!"
    They made a new {dish.name}, and {manner} {elder.name} [ate|shared] it with {beings} and {beings}.

sound:
    {sound_start} {sound_think} {sound_call} / {sound_look} {sound_found} {sound_talk} {sound_end}
sound_start:
    One {night_air} {weekday} night {who} heard {a noise} [noise|cry] {indoors}.
    On {a night_air} {weekday} night there was {a noise} [noise|cry] {indoors}.
sound_think:
    Was it {seen}? Was it {seen}?
    {Who} [felt|was] {upset} and thought of {seen} and {seen}.
sound_call:
    "Who is there?" {who} {cried} {sadly}. "[Are you|I can hear] {a nature} {creature}!"
    "{oh} [Go away|Come out]!" {who} {cried} {sadly}.
    {sadly_first}, {who} called {+elder.name}, but there was only {seen}.
sadly_first:
    Bravely
    Softly
    Shyly
    Loudly
sound_look:
    {Who} took {a quality} {hue} {object} and {moved} {manner} to the {look} {furniture}.
    {soon} {who} [looked|peeped] {indoors}, and {indoors}, and {indoors}.
sound_found:
    It was only {a nature} {+animal.name} with {a quality} {+color.name} {+toy.name}!
    There [sat|stood] {a nature} {+animal.name} with {a quality} {+color.name} {+toy.name} and {a taste} {food}.
sound_talk:
    "I am sorry," it {cried} {sadly}. "I [was looking for|wanted|lost] {a taste} {food} and {seen}."
    "I was {upset} too," {told} the {animal.name} {manner}. "I [saw|heard] {seen} {indoors}."
sound_end:
    They [laughed|sang] {manner} and played {game} with {the_toy} and {beings}.
    {Who} gave the {animal.name} {number} {taste} {treat.many} and {a quality} {hue} bed {indoors}.

storm:
    {day} {storm_start} {storm_saw} {storm_comes} / {storm_hide} {storm_fear} {storm_think} {storm_end}
storm_start:
    {who} {moved} to the {+place.name} with {a trait} {+friend.named}.
    {who} and {a trait} {+friend.named} played {game} {+place.at}.
storm_saw:
    They {saw} {seen}, {seen} and {seen}.
    {friend.name} had {a quality} {hue} {object}, and {hero.name} had {seen}.
storm_comes:
    {soon} the sky [grew|turned] dark, and {a noise} wind blew over the {look} {spot}.
    Then it began to [rain|snow|hail] on {seen} and {seen}.
storm_hide:
    They {moved} {manner} to hide {where}, where they [met|found] {a nature} {+animal.name}.
    {A nature} {+animal.name} called them {manner}. "[Hide|Come|Wait] with me {where}!"
storm_fear:
    "I am [so|very] {upset}," {cried} {friend.name} {sadly}.
    {friend.name} [was|felt] {upset} and {wept} {sadly}.
    "{oh} I [miss|want] my {nature} {creature}," {cried} {friend.name} {sadly}.
storm_think:
    "Think of {foods}, {hue} {objects} and {a nature} {creature}," {told} {hero.name}.
    {hero.name} held {friend.his} hand and told {friend.him} about {seen} and {seen}.
    They sang {manner} about {seen}, {seen} and {seen}.
storm_end:
    When the sun came out, they {manner} played {game} with the {animal.name} and {beings}.
    At last it was over, and {friend.name} {manner} gave {hero.him} {number} {taste} {foods}.
    The {animal.name} gave them {a taste} {food}, and {manner} they {moved} home with {seen}.

treasure:
    {day} {treasure_start} {treasure_map} / {treasure_go} {treasure_dig} {treasure_box} {treasure_share}
treasure_start:
    {who} found a map in {a quality} {hue} {vessel} {where}.
    {a nature} {creature} [gave|showed|brought] {hero.name} a map and {a quality} {object}.
treasure_map:
    "Go {number} steps from the {look} {spot} to the {look} {spot}," it said, "and dig {where}."
    On it [there was|{who} saw] {a hue} {spot}, {a hue} {spot} and {seen}.
treasure_go:
    {Who} and {a trait} {+friend.named} {moved} {manner} to the {+place.name}.
    {Who} called {a trait} {+friend.named}, and they {moved} to the {+place.name} with {seen}.
treasure_dig:
    They [dug|looked] {where} and found only {seen}. They dug {where} and found {seen}.
    First they dug {where}. "I am {upset}," {told} {friend.name} {manner}. Then they dug {where}.
treasure_box:
    There it was, {a quality} {+color.name} {+toy.name} with {number} {hue} {objects}!
    "Look!" {told} {friend.name} {manner}. It was {a quality} {+color.name} {+toy.name} and {seen}.
treasure_share:
    {hero.name} kept {the_toy} and gave {friend.name} {number} {hue} {objects} and {seen}.
    They gave {the_toy} to {a nature} {creature} {place.at} and [felt|were] {glad}.
    {friend.name} kept {the_toy}, and {hero.name} kept {seen} and {a quality} {hue} {vessel}.
"""
