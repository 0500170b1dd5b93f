"""Little everyday stories in the format of the Story Cloze Test: the sample that lets the whole experiment run anywhere.

    python data/sample_stories.py                                                   writes the two CSV files in data/sample again, byte for byte
    python data/sample_stories.py --unlabelled 100000 --seed 7 --out stories.txt    writes stories to pre-train on, one a line, none from those files

A story is four sentences and an ending, made from one of the schemas below. Each schema has two variants, a and b, that differ in one
sentence, the clue; what is a right ending after clue a is a wrong one after clue b, and the other way round. Nothing short of relating the
ending to the clue helps, since everything else is balanced by construction:

- stories come in pairs, one of each variant, with the same two ending phrasings at the same two positions: within a file every ending is right
  as often as wrong and every position is right equally often, so the endings alone say nothing;
- everything but the clue (names, things, neutral sentences) is drawn without looking at the variant, and every clue meets the same two kinds of
  ending, so words of the context added to words of the endings say nothing either;
- a clue rarely shares a telling word with its right ending.

One of the two endings of a schema is a happy one, and its first words say so ("Luckily, ..." or "Sadly, ..."). Which clue leads to it has to be learnt
for each clue: a burst pipe floods the classroom, and luckily the test is off. There are 410 clues: 1,871 labelled stories are too few to learn
them from, a language model that has read many stories knows them. That is the paper's claim about pre-training, in miniature. These are not
ROCStories: do not compare figures with the paper's.
"""

import argparse
import csv
import os
import random
import re
import uuid
from dataclasses import dataclass, field

# The table. A block is a schema: `family: title`, then slots of its own (`thing = cake | pie`), then the sentences 1 to 5, where 5 is the
# ending, happy (`5a+`) or not (`5b-`), and `3a`, `3b` are the third sentence of variants a and b. ` | ` separates phrasings; (one|another) is a choice within a phrasing. An indented
# line goes on with the one before. Slots stay the same through a story: {name} with {he} {him} {his}, a second person {friend} with {he2} {him2}
# {his2}, {relative}, {day}, {weekday}, {city}, {color}. "a/an" becomes the right article, and a sentence gets its capital letter.
SCHEMAS = """
weather: umbrella or sunglasses
place = the market | the library | the post office | the station | the town hall | the barber
1 {name} had to walk to {place} after (lunch|breakfast|school). | It was {weekday}, and {name} was going to {place} on foot. |
  {name} decided to walk to {place} instead of taking the car.
2 {he} tied {his} shoes and looked out of the window for a moment. | {he} stopped at the door for a moment to look at the sky. |
  Before leaving, {he} opened the window and looked (up and down the street|outside).
3a Dark clouds were gathering over the (hills|roofs|river). | The first drops were already hitting the glass. |
  The radio had promised heavy showers for the whole day. | People outside were running with newspapers over their heads. |
  Thunder rumbled somewhere (behind the houses|in the distance).
3b There was not a single cloud above the (hills|roofs|river). | The light was so bright that {he} had to blink. |
  The radio had promised a clear and hot day. | People outside were fanning themselves with newspapers. |
  The pavement was already shimmering (in the heat|like an oven).
4 {name} went back to the hall and opened the closet. | {he} turned around and searched the (shelf|drawer|closet) in the hall. |
  So {he} went back and took something from the (shelf|hook) in the hall.
5a- {name} left with a big umbrella in {his} hand. | The old umbrella kept {him} dry all the way. |
  {he} put up the hood of {his} raincoat and set off. | Soon {he} was stepping over puddles in rubber boots. |
  {he} reached {place} under an umbrella.
5b+ {name} left with dark sunglasses on {his} nose. | The old straw hat kept {his} face cool all the way. |
  {he} rubbed sunscreen on {his} arms and set off. | Soon {he} was looking for shade in {his} sandals. | {he} reached {place} in sunglasses.

weather: snow day or school day
subject = math | history | spelling | geography | science
1 {name} woke up early on {weekday} and did not want to get up. | On {weekday} the alarm clock rang at six, and {name} groaned. |
  {name} had hardly slept, and now it was {weekday} morning.
2 There was going to be a long {subject} test at school. | {he} was worried about the {subject} test in the first lesson. |
  {he} ate (some toast|an egg|an apple) and thought of the {subject} test.
3a The blizzard in the night had blocked every road. | The principal called to say that the heating had broken down. |
  The storm had torn the roof off the classrooms. | The radio said that all lessons were canceled. |
  Every bus in the county was stuck in a ditch.
3b The plows had cleared every road by seven. | The principal called to say that the heating was working again. |
  The storm had done no damage to the classrooms. | The radio said that all lessons would start on time. |
  Every bus in the county was running as usual.
4 {name} told {his} {relative} and looked out at the white street. | {he} put on two sweaters and went out of the front door. |
  {name} pulled on {his} warmest coat and stepped outside.
5a+ {he} spent the whole morning building a snowman. | All the children met on the hill with their sleds. |
  By noon {he} had won three snowball fights. | {name} raced {his} sled down the hill until dark. |
  The morning was one long, merry snowball fight.
5b- {he} spent the whole morning answering hard questions. | All the children sat at their desks with their papers. |
  By noon {he} had filled four pages with answers. | {name} chewed {his} pencil over the test until noon. |
  The morning was one long, quiet {subject} test.

weather: kite in the wind
1 {name} had built a {color} kite out of paper and sticks. | {name} got a {color} kite from {his} {relative}. |
  A {color} kite had been hanging in {name}'s room all winter.
2 On {day} {he} carried it to the (beach|meadow|hill) and met {friend} there. |
  {friend} came along to the (beach|meadow|hill) on {day} to try it.
3a The grass was bending low, and hats were flying off heads. | A strong breeze was blowing (from the sea|across the fields). |
  Every flag along the road was flapping hard. | The trees were swaying, and leaves whirled through the air. |
  Sailboats were racing across the bay.
3b Not a blade of grass was moving, and the air felt heavy. | There was not a breath of air (on the shore|over the fields). |
  Every flag along the road hung limp. | The trees stood still, and the smoke rose straight up. | Sailboats were lying motionless in the bay.
4 {name} held on to the string and started to run. | {name} took the string in both hands and counted to three. |
  {name} let out some string and ran as fast as {he} could.
5a+ The kite shot up and danced high above the roofs. | Soon it was only a {color} dot in the sky. |
  {he} needed both hands to hold the pulling string. | It climbed until the whole string was used up. |
  A minute later it was looping over {his} head.
5b- The kite dragged along the ground and stayed there. | Soon it lay like a {color} rag in the grass. |
  {he} rolled up the slack string and gave up. | It dropped every time {he} let go of it. |
  A minute later it was bumping along behind {his} heels.

mishaps: phone dropped
1 {name} was talking to {friend} on {his} new phone. | {name} had a new phone and called {friend} to tell {him2} about it. |
  On {day} {name} called {friend} with {his} brand-new phone.
2 {he} was leaning out of the (kitchen|bathroom|bedroom) window to enjoy the evening. | {he} stood on the balcony and waved at somebody. |
  {he} leaned over the railing of the balcony to see who was coming.
3 Suddenly the phone slipped out of {his} hand. | A (bee|wasp|fly) startled {him}, and the phone fell. |
  Somebody (knocked|shouted), {he} jumped, and the phone fell.
4a It hit the stone steps (two|three) floors below. | It landed on the concrete with a loud crack. |
  There was nothing but hard bricks down there. | It bounced twice on the parking lot. | A truck drove over it before anybody could move.
4b It landed in a flower bed (two|three) floors below. | It sank into the bushes without a sound. |
  There was nothing but soft grass down there. | It bounced twice on an old mattress. | A neighbor caught it before anybody could scream.
5a- {he} took the pieces to a repair shop. | Splinters were all that was left of the screen. | The next day {he} had to buy another one. |
  {friend} heard a crash and then nothing more. | The screen looked like a spider web from then on.
5b+ {he} wiped it clean and went on talking. | Not a scratch could be found on the screen. | The next day it still worked like new. |
  {friend} heard a rustle and then a sigh of relief. | The screen looked as good as ever that day.

mishaps: locked out
1 {name} came home late from (work|the gym|a party|choir practice) on {day}. |
  It was after midnight when {name} came home from (work|a concert|the theater).
2 At the door {he} noticed that {his} keys were gone. | {he} searched every pocket, but the keys were not there. |
  {his} keys were lying on the kitchen table, behind the locked door.
3 {he} thought of {friend}, who lived next door, and rang the bell there. | So {he} went across the hall and knocked on {friend}'s door. |
  {he} hoped that {friend}, who lived next door, could help.
4a {friend} had gone to the mountains for the week. | No light was on at {friend}'s, and nobody answered. |
  {friend} had given the spare key back last month. | A note on the door said that {friend} was in {city}. |
  {friend} slept so soundly that nothing could wake {him2}.
4b {friend} was watching television and came at once. | A light was on at {friend}'s, and steps came closer. |
  {friend} still had the spare key from last month. | {friend} smiled and reached for a hook on the wall. |
  {friend} knew where the landlord kept the spare key.
5a- {name} spent the night on the cold stairs. | The locksmith came at two and charged a fortune. | In the end {he} broke a window to get in. |
  {he} climbed up the drainpipe and in through the bathroom. | It was morning before {name} saw {his} bed.
5b+ {name} spent the night in {his} own warm bed. | The door was open a minute later, without any cost. |
  In the end {he} walked in as if nothing had happened. | {he} said thank you and went in through the door. |
  It was two minutes before {name} saw {his} bed.

mishaps: spilled juice
drink = grape juice | cherry juice | red wine | blackberry juice | tomato juice
1 {name} was invited to dinner at {friend}'s new apartment. | On {day} {friend} had (six|eight|ten) guests, and {name} was one of them. |
  {friend} celebrated (a new job|a birthday) at home, and {name} came too.
2 Everybody was (laughing|talking) while {name} filled the glasses with {drink}. |
  After the first course {name} stood up to pour {drink} for everyone.
3 {his} elbow hit the bottle, and the {drink} spilled. | {he} stumbled over a chair, and most of the {drink} spilled. |
  (The cat|A child) ran between {his} legs, and the {drink} spilled.
4a It poured all over the white carpet. | It ran into the cushions of the cream-colored sofa. | It soaked the silk curtains in a second. |
  A pale wool rug drank up every drop. | It splashed over the chairs of light suede.
4b It poured all over the stone tiles. | It ran straight into the steel sink. | It dripped from the glass table in a second. |
  A rubber mat caught every drop. | It splashed over the chairs of hard plastic.
5a- {name} scrubbed for hours, but the stain stayed. | The cleaners said that the mark would never come out. |
  {name} offered to pay for the ruined fabric. | {friend} later hid the ugly spot under a pillow. | Salt and soap only made the stain larger.
5b+ {name} wiped once, and there was no stain. | The guests saw that not a mark was left. | {name} mopped it up before anyone could complain. |
  {friend} later could not even find the spot. | A wet cloth was enough to make it shine.

mishaps: alarm clock
place = the airport | the office | the station | the harbor | the hospital
1 {name} had to be at {place} at seven in the morning. | On {weekday} {name} was expected at {place} at seven sharp. |
  {name}'s new job began at {place} at seven in the morning.
2 In the evening {he} packed {his} bag and set the alarm for five. | {he} laid out {his} clothes, set the alarm and went to bed.
3a During the night the power went out for two hours. | {he} did not notice that the clock was slow. | The battery of the clock died at three. |
  {he} had set it to five in the afternoon. | Half asleep, {he} switched it off and turned over.
3b During the night {he} hardly slept, and at four {he} got up. | {he} had set a second clock to be safe. |
  The new battery of the clock did its job. | {his} {relative} called at five, as promised. | Wide awake, {he} switched it off and sprang up.
4 In the kitchen {name} looked at the big clock on the wall. | {he} brushed {his} teeth and looked at {his} watch. |
  {name} got dressed and looked at the clock above the stove.
5a- {he} ran out of the house with wet hair. | {he} reached {place} more than an hour late. | There was no time left for a sip of coffee. |
  {he} jumped into a taxi and begged the driver to race. | Everyone at {place} had given up waiting.
5b+ {he} made pancakes and read the whole newspaper. | {he} reached {place} almost an hour early. |
  There was time left for a second cup of coffee. | {he} strolled to the bus stop and hummed a tune. | Nobody else at {place} had arrived yet.

plans: many guests or few
group = office | class | team | choir | orchestra
1 {name} invited the whole {group} to a (birthday|garden|housewarming|costume) party. |
  For {his} birthday, {name} asked the whole {group} to come over on {day}.
2 {he} wrote the cards by hand and mailed them two weeks before. | {he} sent the invitations early and waited for the answers.
3a Every single one said yes and asked to bring somebody. | (Thirty|Forty|Fifty) people promised to come. |
  In the end the list of names filled two pages. | Even cousins from abroad booked their flights. | Nobody wanted to miss it.
3b Almost every single one was ill or on vacation. | (Two|Three) people promised to come. | In the end the list of names was two lines long. |
  Even {his} cousins had other plans that night. | Nobody seemed to have time.
4 On the morning of the party {name} went shopping and counted the chairs. |
  {name} looked around the living room and began to (cook|tidy up|decorate).
5a+ {he} borrowed twenty chairs from the church. | The crowd danced in the house and in the yard. |
  {he} needed four huge pots to feed everyone. | The line for the buffet reached the front door. | At eight people stood shoulder to shoulder.
5b- {he} found that the kitchen table was big enough. | The tiny circle chatted quietly around the fire. |
  {he} needed one small pan to feed everyone. | The buffet was still almost untouched at the end. | At eight all of them fit on the sofa.

plans: quiet weekend
1 {name} had invited {friend} to stay for the weekend. | {friend} was going to spend the weekend at {name}'s (house|cottage|apartment).
2 {name} was tired after a long week at the (bank|hospital|office|factory). |
  It had been a hard week at the (bank|hospital|office|factory), and {name} was exhausted.
3a On Friday night {friend} called off the visit. | {friend}'s car broke down far away, and the trip was off. |
  {friend} caught the flu and had to stay in bed. | A message said that {friend} could not come after all. |
  {friend} had mixed up the dates and was in {city}.
3b On Friday night {friend} arrived with four noisy kids. | {friend}'s van pulled up with three barking dogs inside. |
  {friend} brought along a trumpet and a drum. | A message said that {friend} would bring the whole family. |
  {friend} had invited a rock band as well.
4 {name} put the kettle on and thought about the two days ahead. |
  {name} looked around the (tidy|small|clean) living room and took a deep breath.
5a+ {he} enjoyed two days of peace with a book. | {he} slept until ten and took a long bath. | For two days nobody asked {him} for anything. |
  {he} had not been so rested for a year. | It was a wonderfully calm and lazy weekend.
5b- {he} washed dishes and made beds for two days. | {he} was up at five and never sat down. |
  For two days everybody asked {him} for something. | {he} had not been so worn out for a year. | It was a terribly loud and busy weekend.

travel: missed train
1 {name} was on the way to a (meeting|conference|lecture) in {city}. | On {weekday} {name} had to go to {city} for {his} company.
2 {he} had a ticket for the train at noon. | The only direct train left at noon, and {he} had a ticket.
3a The taxi got stuck, and the train left without {him}. | {he} read the timetable wrong and came too late. |
  {he} stood on the wrong platform while it departed. | At the gate {he} saw the last car disappear. |
  A closed bridge kept {him} away until one o'clock.
3b The taxi was fast, and {he} got on the train. | {he} read the timetable twice and came just in time. |
  {he} stood on the right platform and got in. | At the gate {he} ran and jumped into the last car. |
  An open bridge let {him} through before noon.
4 {name} sat down and unwrapped a sandwich. | {name} opened a newspaper and began to read. |
  {name} found a place to sit and took off {his} coat.
5a+ At the station {he} met {friend} and laughed for hours. | {he} explored the old town and loved every minute. |
  Between two trains {he} met {friend}, whom {he} later married. | The free hours in the sun were wonderful. |
  A street band outside the station made {his} day.
5b- A baby screamed beside {him} until {city}. | The heating in the car failed, and {he} froze. |
  The man beside {him} snored and smelled of fish. | The ride in the crowded car was awful. |
  Somebody spilled coffee on {him} at the first stop.

travel: hotel room
1 {name} and {friend} booked a room in a hotel in {city}. | In {city}, {name} and {friend} stayed at a small hotel. |
  {name} won a night for two in a hotel in {city} and took {friend} along.
2 They arrived late at night and were dead tired. | After a long journey they got the key at (ten|eleven) o'clock.
3a The window faced a road full of trucks. | A wedding band was playing in the room below. |
  Through the thin walls they heard someone shouting. | The room lay between the elevator and a disco. |
  Workers with drills were digging up the street.
3b The window faced a garden full of roses. | Only a fountain was whispering in the yard below. |
  Through the thick walls they heard nothing at all. | The room lay at the end of an empty corridor. | Snow had fallen and covered the street.
4 {friend} lay down on the bed and turned off the lamp. | They brushed their teeth and turned off the lamp.
5a- {name} stuffed paper into {his} ears and cursed. | At three they were still wide awake. |
  In the morning they had dark rings under their eyes. | They begged for another room before dawn. | Nobody closed an eye that night.
5b+ {name} was asleep in less than a minute. | At nine they were still snoring like bears. | In the morning they were bursting with energy. |
  They dreamed like babies until the late breakfast. | Nobody opened an eye that night.

travel: passport
1 {name} was about to fly to {city} with {friend}. | On {day} {name} and {friend} wanted to fly to {city}.
2 {he} had packed two suitcases and taken a taxi to the airport. | {he} stood in a long line and talked with {friend}.
3a {he} had left {his} passport in a drawer at home. | {his} passport had run out in spring. |
  A thief had stolen {his} passport on the train. | {he} had taken {his} {relative}'s passport by mistake. |
  {his} passport had been through the washing machine.
3b {he} had checked twice that {his} passport was in {his} bag. | {his} passport had been renewed in spring. |
  A neat cover protected {his} passport. | {he} had put {his} passport on top of everything else. | {his} passport was as good as new.
4 The officer looked up and asked {name} for {his} papers. | The officer looked at {name} and then at the screen.
5a- The plane took off without {him}. | {he} had to cancel the whole trip. | {he} saw {his} suitcases come back on the belt. |
  {name} was sent home with both bags. | {friend} had to fly alone.
5b+ The two of them got seats by the window. | {he} was in {city} that night. | {he} saw the clouds from above an hour later. |
  {name} was waved through with a smile. | {friend} was flying beside {him} soon.

gifts: too small or just right
item = jacket | coat | cardigan | shirt | blazer
1 {name} got a {color} {item} from {his} {relative} for Christmas. | For {his} birthday, {name}'s {relative} gave {him} a {color} {item}.
2 It was made by hand and came in a box with a ribbon. | It had been bought in {city} and was very fashionable.
3 {name} put it on at once and went to the mirror. | {he} tried it on in front of the whole family.
4a The sleeves ended just below {his} elbows. | {he} could not close a single button. | It pinched, and {he} could hardly breathe. |
  A seam ripped when {he} raised {his} arms. | It would have suited a child of six.
4b The sleeves ended exactly at {his} wrists. | {he} could close every single button. | It was comfortable, and {he} could breathe easily. |
  Nothing pulled when {he} raised {his} arms. | It might have been made by a tailor.
5a- On {day} {he} took it back to the store. | {name} exchanged it for a larger size. | {his} little nephew wore it from then on. |
  {he} asked for the receipt as politely as {he} could. | In the end it went to a younger cousin.
5b+ On {day} {he} wore it to the office. | {name} refused to take it off at bedtime. | {he} wore it nearly every day from then on. |
  {he} asked where {he} could get a second one. | In the end it was {his} favorite for years.

gifts: secret kept or spoiled
1 {friend} was planning a surprise party for {name}'s birthday. | For {name}'s birthday, {friend} secretly invited all the neighbors.
2 (All|Twenty|Thirty) guests were going to wait in the dark living room. | Everybody was supposed to hide behind the furniture with balloons.
3a {name}'s little brother had already told {him} everything. | {name} had found the list of guests in a coat. |
  One of the guests had called {name} about the cake. | {name} had heard {friend} whispering on the phone. |
  {friend} had left the invitations lying on {name}'s desk.
3b {name}'s little brother had not said a word. | {name} believed that everyone had forgotten the date. |
  {name} was expecting leftovers and television. | {name} had heard that {friend} was in {city}. |
  {friend} had hidden the invitations very well.
4 At (seven|eight) o'clock {name} opened the door, and the lights went on. | When {name} came home from work, all of them jumped up.
5a- {name} had practiced an astonished face for days. | {he} only pretended to be shocked. | {name} admitted that {he} had known it for a week. |
  {he} had even prepared a little speech. | {name} winked and said that {he} was not surprised.
5b+ {name} dropped {his} bag and stared at the faces. | {he} screamed and nearly fell over. | {name} stammered that {he} had had no idea at all. |
  {he} was not able to say a word. | {name} turned pale and had to sit down.

school: exam
subject = math | history | chemistry | Latin | physics | biology
1 The final exam in {subject} was on {weekday}. | On {weekday} {name} had to take the big {subject} exam. |
  {name} was going to write the last {subject} exam on {weekday}.
2a {name} spent the week before it playing video games. | {name} had not opened the textbook once. |
  {name} went dancing every night instead of reading. | {name} had slept through most of the lessons. |
  {name} had lost all {his} notes and never cared.
2b {name} spent the week before it in the library. | {name} had read the textbook three times. |
  {name} solved problems every night instead of going out. | {name} had listened carefully in all of the lessons. |
  {name} had asked {friend} to quiz {him} on every chapter.
3 The teacher handed out the sheets and looked at the clock. | It was (hot|cold|very quiet) in the room when the sheets were handed out.
4 {name} read the first question and picked up {his} pen. | {name} turned the sheet over and read the first question.
5a- {he} did not understand a word of it. | {his} grade was the worst in the class. | {he} stared at the ceiling for an hour. |
  {name} handed in a nearly empty sheet. | {he} had to repeat the course in summer.
5b+ {he} knew the answer before the end of the line. | {his} grade was the best in the class. | {he} wrote without a pause for an hour. |
  {name} handed in six full pages. | {he} passed the course with honors.

school: canceled test
1 On {weekday} {name}'s class was supposed to write a long test. | The most important test of the year was on {weekday}. |
  {name} was afraid of the test on {weekday}.
2 {name} had sharpened four pencils and felt nervous. | {name} came early and sat down in the (first|second|last) row.
3a The teacher was in the hospital with a broken leg. | A pipe had burst, and the classroom was under water. |
  A fire in the copy room had burned the papers. | The teacher had left the papers on a train. | The fire alarm rang and would not stop.
3b The teacher was waiting at the desk with a stern face. | The phones were collected, and the desks moved apart. |
  A stack of fresh copies lay on the desk. | The teacher wrote the time on the board. | The last bell rang, and the door was shut.
4 {friend} turned around and looked at {name}. | For a moment it was very quiet, and {name} looked at {friend}.
5a+ They all cheered and ran out to play soccer. | {name} laughed with relief and packed {his} bag. |
  They spent the lesson telling jokes in the yard. | Nobody had to write a line that day. | {name} bought ice cream to celebrate the luck.
5b- They all sighed and bent over their questions. | {name} groaned and filled page after page. |
  They spent the lesson sweating over hard problems. | Nobody dared to look up for two hours. | {name} rubbed {his} sore hand at the end.

work: bus or bicycle
1 {name} worked at a (bakery|hospital|school|bank) on the other side of town. | {name}'s new office was on the other side of the river.
2 On {weekday} {he} had to be there by seven. | {he} was already a little late on {weekday} morning. |
  {his} shift on {weekday} began earlier than usual.
3a {his} bicycle had two flat tires. | Somebody had taken {his} bicycle from the yard. | The chain of {his} bicycle had snapped. |
  The brakes of {his} bicycle no longer worked. | {name} had left {his} bicycle at the repair shop.
3b The bus drivers had gone on strike. | A fallen tree was blocking the bus lane. | The bus line to {his} part of town had been closed. |
  A notice said that no bus would run. | The bus depot had burned down in the night.
4 {name} looked at {his} watch and knew what to do. | {name} finished {his} breakfast, thought for a second and hurried out.
5a- {he} ran to the stop and bought a ticket. | {name} got the last seat behind the driver. |
  {he} stood in the crowded aisle and arrived in time. | {he} read the paper while the driver fought the traffic. |
  {name} got off at the fourth stop.
5b+ {he} put on {his} helmet and pedaled off. | {name} leaned into the curves with cold ears. |
  {he} pedaled through the empty park and arrived in time. | {he} rang {his} bell and rolled past the traffic. |
  {name} locked the frame to the fence.

work: stairs or elevator
floor = fifth | sixth | seventh | eighth | ninth
1 {name} worked on the {floor} floor of an office building. | {name}'s office was on the {floor} floor of an old tower.
2 On {weekday} {he} came back from lunch at one. | {he} came in from the street with a cup of coffee.
3a A sign said that the elevator was out of order. | The elevator was stuck between two floors. | The doctor had told {him} to exercise more. |
  Smoke was coming out of the elevator. | {he} had promised {friend} to get fit.
3b A sign said that the staircase was being painted. | {he} had three heavy boxes to bring up. | {he} had sprained {his} ankle on the weekend. |
  Smoke was coming out of the staircase. | {he} had to push a cart with a printer.
4 A meeting with {friend} began in five minutes. | {name} wanted to be at {his} desk in five minutes.
5a- {he} climbed and climbed and arrived panting. | {name} held on to the railing, out of breath. | {he} took two steps at a time. |
  {his} legs were burning when {he} reached the {floor} floor. | {he} counted more than a hundred steps.
5b+ {he} pressed the button and arrived with a ding. | {name} leaned on the back wall and relaxed. | {he} rode up without moving a foot. |
  The doors slid open when {he} reached the {floor} floor. | {he} watched the numbers light up.

work: night or day
job = nurse | guard | baker | porter | reporter | cook
1 {name} started to work as a/an {job} in {city}. | After school {name} found a job as a/an {job}.
2 The pay was good, and the colleagues were (friendly|patient|funny). | {he} liked the work, and {friend} showed {him} everything.
3a The shift began at ten in the evening. | The rest of the town was asleep when {he} worked. | The moon was up when {he} left the house. |
  On the schedule {his} hours ran from midnight to eight. | {he} came back with the first birds.
3b The shift began at ten in the morning. | The rest of the town worked at the same time. | The sun was up when {he} left the house. |
  On the schedule {his} hours ran from nine to five. | {he} came back with the last light.
4 After a week {name} was used to the rhythm. | It took {name} a month to get used to the hours.
5a- {he} drew the curtains at breakfast time and slept. | {his} bedtime was now at nine in the morning. |
  {he} had dinner when {his} neighbors had breakfast. | {he} wore earplugs since children shouted all day. |
  At noon {he} was always fast asleep.
5b+ {he} closed the curtains after the news and slept. | {his} bedtime was now at ten in the evening. |
  {he} had breakfast when {his} neighbors had breakfast. | {he} wore sunglasses on the way to the bus. |
  At midnight {he} was always fast asleep.

work: fired or promoted
dream = bake bread | build guitars | repair clocks | make cheese | grow apples | carve toys
1 {name} had worked at the (paper mill|bank|car factory) for (ten|twelve|twenty) years. |
  For (ten|twelve|twenty) years {name} had worked at the (steel works|insurance office).
2 What {he} really loved was to {dream}. | In {his} free time {he} loved to {dream}.
3a In spring the company went bankrupt. | A machine took over {his} tasks in spring. | The boss told {him} that {he} was fired. |
  One morning {he} found the gates locked for good. | A letter said that {his} position was cut.
3b In spring the company doubled in size. | The boss gave {him} an office with three phones. | The boss told {him} that {he} was promoted. |
  One morning {he} found {his} name on the director's door. | A letter said that {his} salary was doubled.
4 {name} told {his} {relative} about it that evening. | It took {name} some time to get used to the news.
5a+ {he} opened a little shop and was happier than ever. | Now {he} could {dream} all day, and {he} loved it. |
  {he} slept well again and sang in the morning. | A year later {he} was proud of {his} own workshop. |
  {name} finally had time, and {he} smiled a lot.
5b- {he} worked until midnight and was sadder than ever. | Now {he} could never {dream} again, and {he} missed it. |
  {he} slept badly now and worried in the morning. | A year later {he} hardly knew {his} own children. |
  {name} never had time, and {he} frowned a lot.

work: interview
1 {name} had applied for a job at a (bank|museum|newspaper|school). | On {weekday} {name} had an interview at a (bank|museum|newspaper|school).
2 {he} put on {his} best shirt and arrived early. | {name}'s {relative} drove {him} there and waited outside.
3 A woman with gray hair asked {name} to sit down. | {name} was called in and sat down in front of three people.
4a {he} could not answer a single question. | {he} had forgotten the name of the company. |
  {he} knocked a glass of water over the papers. | {he} yawned twice and looked at {his} phone. | {he} came in slippers and argued with everyone.
4b {he} answered every single question. | {he} knew the whole history of the company. |
  {he} showed them a plan that nobody had thought of. | {he} listened well and made them laugh. | {he} brought letters of praise from three bosses.
5a- {name} was told to look elsewhere. | The door closed behind {him} after five minutes. | Nobody ever called {him} back. |
  {he} got a polite refusal in the mail. | {his} name was crossed off the list.
5b+ {name} was told to start on Monday. | The whole table stood up and shook {his} hand. | Everybody wanted {him} on the team. |
  {he} got a contract in the mail. | {his} name was put at the top of the list.

food: cake
thing = apple cake | cherry pie | plum tart | carrot cake | almond cake | pumpkin pie
1 {name} baked a/an {thing} for {his} {relative}'s birthday. | For the (school|church|office) party, {name} baked a/an {thing}. |
  {name} tried a new recipe for a/an {thing}.
2 {he} mixed everything and slid the {thing} into the oven. | {he} followed every step and put the tin into the oven.
3a Then {he} fell asleep in front of the television. | A long phone call made {him} forget the time. | {he} had set the oven much too hot. |
  Black smoke filled the kitchen when {he} came back. | The timer was broken and never rang.
3b Then {he} sat down and watched through the glass. | A loud ring reminded {him} of the time. | {he} had set the oven exactly right. |
  A sweet smell filled the kitchen when {he} came back. | The timer rang, and {he} came running.
4 {name} put on thick gloves and opened the oven. | {name} took the {thing} out and put it on the table.
5a- {he} scraped the black crust into the trash. | In the end {he} bought a/an {thing} at the bakery. |
  Even the birds did not touch the crumbs. | It was hard as charcoal and tasted bitter. | {name} opened the windows and started over.
5b+ {he} dusted the golden crust with sugar. | In the end everybody asked for a second slice. | Within minutes not a crumb was left. |
  It was soft as a cloud and tasted wonderful. | {name} called the guests and served it proudly.

food: soup
kind = pea | bean | lentil | carrot | tomato | mushroom | pumpkin
1 {name} cooked a big pot of {kind} soup for {friend}. | On {day} {name} made {kind} soup for the first time.
2 The guests were coming at (six|seven), so there was little time. | {he} was in a hurry and did not look at the recipe.
3a The lid of the salt shaker fell off over the pot. | {he} seasoned it twice because {he} forgot the first time. |
  One spoonful tasted like the Dead Sea. | {friend} tried it and quickly drank a glass of milk. |
  {he} took the salt for sugar and used half a cup.
3b {he} left out the salt, and the shaker was empty. | {he} did not season it because {he} thought {he} had. |
  One spoonful tasted like dishwater. | {friend} tried it and asked if it was hot water. | {he} had only used half an onion and no salt.
4 {name} stirred the pot and thought hard. | {name} made a face and looked around the kitchen.
5a- {he} added a quart of water and some cream. | Three raw potatoes soaked up the worst of it. | {he} thinned it with a lot of milk. |
  {name} diluted it until it was mild. | More and more water made it fit to eat.
5b+ {he} added a spoon of pepper and some chili. | Three cloves of garlic gave it some life. | {he} spiced it with a lot of curry. |
  {name} seasoned it until it was tasty. | More and more herbs made it fit to eat.

pets: at the vet
1 {name}'s old dog had not eaten since {day}. | {name} noticed that {his} dog was lying in the corner all day. |
  On {day} {name}'s dog did not want to get up.
2 {he} carried it to the vet, wrapped in a blanket. | {name} called {friend}, who drove them to the vet.
3 The vet listened to its heart and took some blood. | The vet examined it from head to tail.
4a The X-ray showed a (spoon|golf ball|sock) in its stomach. | Its temperature was dangerously high. |
  The vet looked very serious and called for help. | The results of the blood test were alarming. |
  Something sharp was stuck deep in its throat.
4b The X-ray showed (nothing at all|no fault at all). | Its temperature was perfectly normal. | The vet laughed and scratched its ears. |
  The results of the blood test were excellent. | It was only tired from chasing squirrels.
5a- It had to be operated on that night. | {name} went home alone with an empty leash. | It stayed at the clinic for a week. |
  {name} waited for hours outside the operating room. | A difficult operation saved its life.
5b+ It trotted home with a biscuit in its mouth. | {name} went home with a dog that pulled the leash. |
  It was back on the sofa within the hour. | {name} laughed with relief and paid twenty dollars. | A good long nap was all it needed.

pets: cat up or down
cat = Tiger | Mimi | Shadow | Pepper | Socks | Ginger
1 {name}'s cat {cat} had disappeared on {day}. | On {day} {name} could not find {his} cat {cat}. |
  {cat}, {name}'s cat, did not come to dinner on {day}.
2 {name} called and called, and {friend} helped with the search. | After an hour {name} asked {friend} to help with the search.
3a A thin meow came from the top of the oak. | {friend} pointed at the chimney. | Two green eyes looked down from the highest branch. |
  The neighbor's dog was barking at a tree. | {friend} saw a tail hanging from the roof.
3b A thin meow came from below the bed. | {friend} pointed at the bottom of the closet. | Two green eyes looked out from behind the sofa. |
  The neighbor's dog was sniffing at a drawer. | {friend} saw a tail in the heap of laundry.
4 {cat} was clearly too scared to move. | {name} spoke softly to {cat}, but that was not enough.
5a- The firefighters came with a long ladder. | {name} climbed up and carried {cat} down. | It took a rope and a ladder to reach {cat}. |
  In the end {cat} jumped down into a blanket. | {friend} held the ladder while {name} climbed.
5b+ {name} knelt down with a can of tuna. | {name} crawled in and pulled {cat} out. | It took a flashlight and a sausage to lure {cat}. |
  In the end {cat} crept out, covered with dust. | {friend} moved the furniture while {name} crawled.

pets: runaway dog
dog = Rex | Bruno | Bella | Rocky | Lucky
1 {name}'s dog {dog} ran away on {day}. | On {day} {dog}, {name}'s dog, slipped off the leash.
2 {he} hung posters on every tree in the street. | {he} searched the park with {friend} until it was dark.
3a Weeks passed without any sign. | All that {he} found was a torn collar. | Nobody had seen the dog anywhere. |
  There were only strangers at the shelter. | The rain washed the posters away.
3b The next day there was a bark at the door. | A boy had found the collar and the dog. | A neighbor had seen the dog at the bakery. |
  There was a call from the shelter. | A woman with a poster in her hand rang the bell.
4 {name} had not slept and opened the door. | {name} took the leash and went out once more.
5a- {dog} was never seen again. | The basket stayed empty that winter. | {he} gave the bowl and the leash away. |
  {he} cried over the old pictures of {dog}. | The garden was silent from then on.
5b+ {dog} jumped up and licked {his} face. | The basket was full again that night. | {he} filled the bowl to the rim. |
  {he} hugged {dog} and would not let go. | The garden was full of barking again.

sport: final
1 {name} played for the (school|town|village) soccer team. | {name} was the captain of the (school|town|village) soccer team.
2 On {day} they met their old rivals in the final. | (Thousands|Hundreds) of people came to see them in the final on {day}.
3 One minute before the end, the score was two to two. | In the last minute the game was still tied.
4a {name} headed the ball past the rivals' goalkeeper. | The rivals' goalkeeper slipped and lost the ball. |
  {friend} won the ball and scored from thirty yards. | {name} took a penalty and did not miss. |
  The rivals' captain kicked the ball into the wrong net.
4b {name} headed the ball past {his} own goalkeeper. | Their own goalkeeper slipped and lost the ball. |
  {friend} lost the ball, and the rivals scored from thirty yards. | The rivals took a penalty and did not miss. |
  {name} kicked the ball into the wrong net.
5a+ The team lifted the silver cup and sang. | {name} danced through the streets until morning. | Fireworks were lit all over town that night. |
  {he} kissed the gold medal again and again. | The fans carried {him} around the field.
5b- The team watched the others lift the cup. | {name} hid in {his} room until morning. | It was very quiet all over town that night. |
  {he} put the silver medal into a drawer. | The fans went home without a word.

sport: marathon
1 {name} had trained all year for the marathon in {city}. | The marathon in {city} was {name}'s great dream.
2 On {day} thousands of runners stood at the start. | {friend} had come along to cheer, and the start was at nine.
3a After five miles {his} knee began to swell. | {he} got a cramp and fell down at the bridge. | {he} twisted {his} ankle on a bottle. |
  {his} heart was racing, and {he} felt dizzy. | Half of the way was enough to break {him}.
3b After five miles {his} legs still felt light. | {he} found a good pace and flew over the bridge. |
  {he} jumped over every bottle on the road. | {his} heart was calm, and {he} felt strong. | Half of the way was only a warm-up for {him}.
4 {friend} stood at the side of the road and shouted {name}'s name. | People were waving flags at the side of the road.
5a- A doctor bandaged {his} leg in the tent. | {he} gave up and took the bus to the finish. | {he} sat on the curb and watched the others pass. |
  {name} hobbled home on {friend}'s arm. | {he} cried because it was over so soon.
5b+ A girl hung a medal around {his} neck. | {he} sprinted the last mile to the finish. | {he} passed the others and beat {his} own record. |
  {name} danced home on {friend}'s arm. | {he} cheered because {he} had really done it.

sport: penalty
1 There was one minute left in the game against {city}. | {name}'s team was playing against {city} on {day}.
2 The score was even, and the whole stadium was standing. | {friend} was sitting in the front row and held {his2} breath.
3 The referee blew the whistle, and {name} put the ball on the spot. | {name} was chosen to take the penalty.
4a {he} slipped on the wet grass. | {he} kicked the ball over the bar. | The keeper jumped to the right side. |
  The ball hit the post and bounced away. | {his} shot was weak and slow.
4b {he} ran up without any doubt. | {he} kicked the ball just below the bar. | The keeper jumped to the wrong side. |
  The ball hit the post and bounced in. | {his} shot was hard and fast.
5a- The others won in extra time. | {he} hid {his} face in {his} shirt. | {name} walked off the field alone. |
  Nobody said a word in the bus. | The fans went home in silence.
5b+ The whole team piled up on {him}. | {he} threw {his} shirt into the air. | {name} was carried off the field on shoulders. |
  Everybody sang in the bus. | The fans danced until midnight.

friendship: far away or next door
1 {name} and {friend} had been best friends since kindergarten. | {friend} had always been {name}'s best friend.
2 They shared all their secrets and had built a treehouse together. | They had the same birthday and laughed about the same jokes.
3a In summer {friend}'s family moved to Australia. | {friend}'s mother took a job on the other side of the ocean. |
  {friend} was sent to a boarding school in Scotland. | A truck took {friend}'s furniture three thousand miles west. |
  Now it was night at {friend}'s when {name} had lunch.
3b In summer {friend}'s family moved to {name}'s street. | {friend}'s mother took the apartment across the hall. |
  {friend} was sent to live with {name}'s family. | A truck took {friend}'s furniture just around the corner. |
  Now {name} could see into {friend}'s window from bed.
4 Both of them thought about how things would change. | They talked about what it would be like for them.
5a- They wrote each other a letter every week. | From then on they talked by video on Sundays. | They saw each other only once a year. |
  {name} saved every cent for a plane ticket. | {name} pinned {friend}'s postcards to the wall.
5b+ They walked to school together every morning. | From then on they had breakfast together on Sundays. | They saw each other ten times a day. |
  {name} never had to wait long for a playmate. | {name} knew what {friend}'s family had for dinner.

friendship: quarrel
1 {name} and {friend} had a bad fight about (money|a board game|a borrowed bike). |
  {name} and {friend} had been angry with each other since {day}.
2 For a whole week they did not say a word. | Both of them were too proud to call.
3 On {day} they met by chance (at the bakery|on the stairs|in the park|at the bus stop). |
  Then they sat (side by side|face to face) in the waiting room by accident.
4a {friend} held out a hand. | {friend} blushed and said, "It was my fault." | With a shy smile {friend} offered {name} half a sandwich. |
  {friend} had already written a long apology. | {friend} asked how {name} had been.
4b {friend} looked away. | {friend} hissed and said, "It was your fault." | With a cold look {friend} got up and left. |
  {friend} had already given away all of {name}'s presents. | {friend} acted as if {name} were air.
5a+ They hugged and went for ice cream. | {name} was glad to have {his} friend back. | Soon they were laughing about the whole thing. |
  The next day they had lunch together. | {name} forgave {him2} on the spot.
5b- They never spoke to each other again. | {name} was sad to lose {his} friend. | Soon they were complaining about each other. |
  The next day they had lunch at separate tables. | {name} tore up the pictures of them.

health: broken bone or cold
1 {name} could not come to (school|work|choir practice) on {weekday}. | On {day} {name} called {friend} to cancel their plans.
2a {he} had fallen off a ladder. | {he} had slipped on the cellar stairs. | {he} had crashed {his} bike into a wall. |
  A horse had thrown {him} off. | {he} had tumbled down from the apple tree.
2b {he} had sat in a cold wind for hours. | {he} had walked home in the rain without a coat. | {he} had sneezed forty times in the night. |
  A virus had caught {him}. | {he} had a sore throat and a runny nose.
3 {his} {relative} was worried and called the doctor right away. | {his} {relative} drove {him} to the doctor before breakfast.
4 The doctor looked at {name} and told {him} to be patient. | {name} had to wait for an hour before the doctor came.
5a- {he} had to wear a cast for six weeks. | All {his} friends signed the white plaster. | The X-ray showed a crack in the wrist. |
  {name} learned to write with {his} left hand. | {his} arm stayed in a sling until Easter.
5b+ {he} had to drink hot tea for six days. | All {his} friends sent tissues and oranges. | The thermometer showed a high fever. |
  {name} learned to like bitter cough syrup. | {his} neck stayed in a scarf until Sunday.

health: glasses
1 {name} had had headaches in the evening for weeks. | {name}'s {relative} noticed that {he} was rubbing {his} eyes a lot.
2 On {weekday} {he} went to have {his} eyes tested. | {friend} told {him} to see the optician on Main Street.
3 The optician asked {name} to read the letters on the wall. | {name} sat down in a big chair and looked at the chart.
4a {he} saw nothing but gray smudges. | Even the second line was a blur. | {he} took the big "B" for an "8". |
  {he} squinted and guessed every letter wrong. | {he} had to walk up until {his} nose touched it.
4b {he} read the smallest line with ease. | Even the last line was crisp and clear. | {he} did not take a single "B" for an "8". |
  {he} smiled and got every letter right. | {he} could have read it from across the street.
5a- {he} had to pick a heavy frame. | {name} had to put on glasses to drive. | Without thick lenses the world had no edges. |
  {he} could no longer read without thick lenses. | {name} was told to come back for thick glasses.
5b+ {he} was told to drink more and sleep longer. | {name} did not have to wear anything to drive. | A new pillow cured {him} in the end. |
  {he} was sent home since there was nothing to correct. | {name} was told to turn off the screen at night.

home: power cut
1 {name} and {friend} wanted to watch a movie on {day} evening. | On {day} {friend} came over to watch an old movie with {name}.
2 A storm was raging outside, and rain beat against the windows. | There was thunder and lightning, but they were cozy on the sofa.
3a Suddenly the whole street went black. | A tree fell on the wires along the road. | The lamps flickered once and went out. |
  The screen died, and the fridge stopped humming. | With a flash the fuse box burned out.
3b But the whole street stayed bright. | A tree fell just beside the wires along the road. | The lamps flickered once and stayed on. |
  The screen glowed, and the fridge went on humming. | With a flash the storm was over.
4 {name} and {friend} looked at each other and laughed. | {name} got up for a moment and fetched something from the kitchen.
5a- They lit candles and told ghost stories. | By flashlight they played cards until bedtime. | They ate the ice cream before it could melt. |
  {name} made shadow animals in the light of a match. | The ending would have to wait for another day.
5b+ They turned up the sound and watched the ending. | With popcorn they watched until bedtime. | They heated a pizza in the microwave. |
  {name} wiped away a tear when the hero died. | The film was so good that they watched it again.

home: mouse or branch
1 A strange noise woke {name} in the middle of the night. | {name} could not sleep because of a strange noise. |
  For three nights a strange noise had kept {name} awake.
2 {he} lay still in the dark and listened. | {he} turned on the lamp and got out of bed.
3a Something was scurrying behind the pantry. | In the morning there were holes in the cheese. | Tiny droppings lay on the kitchen shelf. |
  Little feet were pattering across the floor. | Something had nibbled at the bag of rice.
3b Something tapped on the window when the wind blew. | In the morning there were scratches on the gutter. |
  Green leaves lay on the bedroom windowsill. | Long wooden fingers were scraping across the glass. |
  The old elm was knocking against the roof.
4 On {day} {name} decided to put an end to it. | {name} told {friend} about it and made a plan.
5a- {he} set a trap with a bit of bacon. | {he} borrowed {friend}'s cat for a week. | {he} filled the hole in the wall with plaster. |
  A little guest with whiskers was carried to the field. | {name} caught it in a shoe box at dawn.
5b+ {he} cut off a bough with a saw. | {he} borrowed {friend}'s ladder for a day. | {he} trimmed the crown on that side. |
  A heap of twigs was carried to the field. | {name} had firewood for a month.

money: found wallet
1 {name} found a wallet on (the sidewalk|a park bench|the bus) on {day}. |
  On the way to (work|school|church), {name} saw a wallet lying in the (grass|snow|gutter).
2 There were (two|three|four) hundred dollars in it. | It was made of brown leather and full of money.
3a Behind the bills was a card with a name and a street. | A letter in it was addressed to a Mrs. Hill. |
  A driver's license was tucked into the side. | {friend} knew the man on the photo in it. | A phone number was written inside the flap.
3b Behind the bills there was no card and no name. | There was no letter and not even a receipt. | No license was tucked into the side. |
  {friend} did not know the child on the photo in it. | Nothing at all was written inside the flap.
4 {name} did not think of keeping a cent. | {name} counted the money and went on {his} way.
5a+ The owner opened the door and hugged {him}. | {name} rang the owner's bell that evening. | {he} went to the house and gave it back. |
  {he} got a bunch of flowers as a reward. | That night the owner slept well again.
5b- An officer opened a drawer and locked it away. | {name} went to the police that evening. | {he} went to the lost-and-found office. |
  {he} put up a notice at the town hall. | That night nobody knew who the owner was.

money: savings
thing = guitar | telescope | bicycle | camera | trumpet | microscope
1 {name} wanted a {color} {thing} more than anything else. | There was a {color} {thing} in a shop on Main Street, and {name} loved it.
2 It cost (two|three|four) hundred dollars. | It was expensive, and {his} {relative} could not help {him}.
3a {he} put every dollar of {his} pay into a jar. | {he} delivered newspapers all summer. | {he} mowed forty lawns in three months. |
  {he} sold {his} comics and washed cars. | {he} never bought candy and always walked.
3b {he} lost every dollar of {his} pay at cards. | {he} lay in the hammock all summer. | {he} was fired from three jobs in three months. |
  {he} bought comics and a heap of toys. | {he} always bought candy and took taxis.
4 In September {name} went to the shop with {friend}. | On {day} {name} went to the shop and emptied {his} pockets.
5a+ {he} carried the {thing} home with pride. | The clerk handed {him} the {thing} with a smile. |
  That night the {thing} stood beside {his} bed. | {name} tried out the {thing} on the way home. | There was even enough for a case.
5b- {he} looked at the {thing} and walked home. | The clerk put the {thing} back with a frown. |
  That night the {thing} stood in the shop window. | {name} dreamed of the {thing} for another year. | There was only enough for an ice cream.

money: market day
fruit = apples | plums | pears | cherries | peaches | apricots
1 {name} had picked {fruit} to sell at the market. | On {day} {name} brought ten crates of {fruit} to the market.
2 {he} set up a table next to {friend}'s stand. | {he} had borrowed a truck and wrote a big sign.
3a A line formed before {he} had finished. | A cook bought five crates for a hotel. | The newspaper had praised {name}'s {fruit}. |
  {he} could hardly weigh and wrap fast enough. | Three busloads of tourists came along.
3b Not a soul came because of the cold rain. | A cook shook his head and went to another stand. |
  The newspaper had warned of worms in the {fruit}. | {he} yawned and read the paper twice. | The road to the market was closed that day.
4 At noon the bell rang, and {name} began to pack. | {name} stayed until the end and then cleaned the table.
5a+ {he} drove home with empty crates and a full purse. | {he} counted the bills and whistled. | {name} came home without a single one. |
  {he} could afford a new coat that evening. | The next week {he} asked for a larger table.
5b- {he} drove home with full crates and an empty purse. | {he} boiled forty jars of jam. | {name} gave {friend} a crate as a present. |
  {he} fed the pigs with them that evening. | The next week {he} stayed at home.

money: lottery
1 {name} bought a lottery ticket every {weekday}. | {friend} gave {name} a lottery ticket for {his} birthday.
2 {he} always chose the birthdays of {his} family. | {he} pinned it to the wall above the table.
3 On {day} evening {name} turned on the television. | On {day} {name} opened the newspaper and looked for the numbers.
4a Not one of {his} numbers was there. | {he} had thrown the ticket away by mistake. | {he} had forgotten to hand the ticket in. |
  All of the numbers but one were wrong. | It had been nothing but a misprint.
4b Every one of {his} numbers was there. | {he} held the ticket in {his} hand and trembled. | {he} had handed the ticket in just in time. |
  All of the numbers, one by one, were right. | It was the jackpot at last.
5a- {he} had spent two dollars for nothing. | {he} threw the paper into the fire. | {name} went to work as always the next day. |
  Nothing was left but a scrap of paper. | The dream of a house by the sea was over.
5b+ {he} bought a house by the sea. | {he} invited the whole street to dinner. | {name} never had to go to work again. |
  A check with many zeros came in the mail. | The dream of a trip around the world came true.

hobbies: fishing
1 {name} and {friend} went fishing on {day}. | At dawn on {day}, {name} and {friend} rowed out on the lake. |
  {name}'s {relative} had lent {him} and {friend} two fishing rods.
2 They cast their lines and waited. | They ate their sandwiches and talked about (work|school|old times).
3a Before long both floats went under. | {name}'s rod was bent like a bow. | {friend} could hardly hold the net. |
  The bucket was splashing and full by ten. | Silver bellies were glittering in the basket.
3b Hour after hour both floats lay still. | {name}'s rod did not move at all. | {friend} did not even unfold the net. |
  The bucket was empty and dry at ten. | Only an old boot came up from below.
4 When the church bell rang, they packed up and went home. | At noon they packed up and drove home.
5a+ They grilled six trout over the fire. | The whole street came for a fish dinner. | {name} spent the afternoon scraping off scales. |
  {friend} took a picture of the giant pike. | They had to give some away.
5b- They warmed up some beans over the fire. | On the way they stopped for a burger. | {name} opened a can of sardines. |
  {friend} made jokes about their bad luck. | They had to order a pizza.

hobbies: audition
1 There was an audition for the musical on {day}, and {name} went. | {name} wanted to sing in the musical at (school|the theater).
2 {he} had practiced one song (for weeks|every night). | {he} put on {his} {color} sweater and warmed up {his} voice.
3 {friend} played the piano, and {name} stepped onto the stage. | When {his} turn came, {name} walked to the middle of the stage.
4a {his} voice cracked in the first line. | {he} forgot the words after a minute. | The jury covered their ears. |
  A fit of coughing would not stop. | {he} sang much too low and turned red.
4b {his} voice filled the hall to the last row. | {he} knew every word by heart. | The jury put down their pens to listen. |
  Not a single note was wrong. | {he} held the last note until the lamps shook.
5a- {name} had to sell the tickets instead. | Somebody else got the part. | {he} was sent home after one verse. |
  {name} never sang in public again. | {he} watched the musical from the last row.
5b+ {name} got the leading part. | Everybody stood up and clapped. | {he} was asked to sing another verse. |
  {name} sang every evening in June. | {his} picture was on all the posters.
"""

FEMALE = (
    'Ada Alice Amina Amy Anna Beth Carla Carmen Chloe Clara Daisy Diana Elena Ella Emma Eva Fatima Grace Hanna Hazel Helen Ida Ines Iris Ivy Jane '
    'Jasmine Julia Karen Kate Laila Lara Laura Leah Lena Lily Lisa Lucy Maria Martha Maya Mei Mina Nadia Nina Nora Olga Olivia Paula Priya Rita Rosa '
    'Ruby Ruth Sara Sofia Stella Tara Uma Vera Yuki Zoe'
).split()
MALE = (
    'Adam Ahmed Alan Alex Amir Andy Anton Ben Bill Boris Carl Carlos Chen Dan David Diego Ed Eli Emil Eric Felix Finn Frank Fred George Greg Hassan '
    'Henry Hugo Ian Igor Ivan Jack James Jim Joe John Jorge Ken Kevin Kofi Leo Liam Luis Marco Max Mike Milo Noah Omar Oscar Otto Paul Pedro Peter '
    'Raj Ralph Ray Sam Simon Steve Theo Tim Tom Victor Walter'
).split()
OPENINGS = {  # of an ending
    '+': [
        'Luckily',
        'Happily',
        'Fortunately',
        'Thankfully',
        'Best of all',
        'To {his} joy',
        'To {his} delight',
    ],
    '-': [
        'Unluckily',
        'Unhappily',
        'Unfortunately',
        'Sadly',
        'Worst of all',
        'To {his} sorrow',
        'To {his} distress',
    ],
}
SLOTS = {
    'day': 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split(),
    'weekday': 'Monday Tuesday Wednesday Thursday Friday'.split(),
    'city': 'Boston Chicago Denver Dallas Seattle Portland Atlanta Vienna London Dublin Toronto Lisbon Oslo Madrid Sydney Naples'.split(),
    'color': 'red blue green yellow purple white black brown'.split(),
    'relative': 'mother father sister brother cousin aunt uncle grandmother grandfather'.split(),
}
COLUMNS = [
    'InputStoryid',
    'InputSentence1',
    'InputSentence2',
    'InputSentence3',
    'InputSentence4',
    'RandomFifthSentenceQuiz1',
    'RandomFifthSentenceQuiz2',
    'AnswerRightEnding',
]
FILES = (
    'cloze_test_val__spring2016 - cloze_test_ALL_val.csv',
    'cloze_test_test__spring2016 - cloze_test_ALL_test.csv',
)
ROWS = 1871  # as many as each of the real files has
SEED = 2018  # of the two files
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'sample')


@dataclass
class Schema:
    """One block of the table. `phrasings[i][v]` are the ways to say sentence i (0 to 4; 4 is the ending) in variant v, 'a' or 'b'."""

    family: str
    title: str
    slots: dict = field(default_factory=dict)
    phrasings: list = field(default_factory=lambda: [{} for _ in range(5)])
    moods: dict = field(default_factory=dict)  # '+' or '-' of the endings of each variant


def parse_schemas(table=SCHEMAS):
    """The table as a list of `Schema`. A sentence without a letter has the same phrasings in both variants."""
    schemas = []
    for block in table.strip().split('\n\n'):
        head, *lines = re.sub(r'\n +', ' ', block).split('\n')
        schema = Schema(*head.split(': '))
        for line in lines:
            key, rest = line.split(maxsplit=1)
            if rest.startswith('= '):
                schema.slots[key] = rest[2:].split(' | ')
            else:
                for variant in key[1:2] or 'ab':
                    schema.phrasings[int(key[0]) - 1][variant] = rest.split(' | ')
                if key[2:]:
                    schema.moods[variant] = key[2]
        schemas.append(schema)
    return schemas


def phrase(phrasings, rng):
    """One of the phrasings, with its (one|another) choices made and its slots still open."""
    return re.sub(
        r'\((.+?)\)', lambda choice: rng.choice(choice[1].split('|')), rng.choice(phrasings)
    )


def phrase_ending(schema, variant, rng):
    """An ending of a variant, its slots still open: the opening, which tells the mood, and a phrasing."""
    ending = phrase(schema.phrasings[4][variant], rng)
    return f'{rng.choice(OPENINGS[schema.moods[variant]])}, {ending[0].lower()}{ending[1:]}'


def draw_slots(schema, rng):
    """What the slots of one story stand for: two different persons, a day, a thing, ..."""
    slots = {slot: rng.choice(values) for slot, values in {**SLOTS, **schema.slots}.items()}
    for who, number in ('name', ''), ('friend', '2'):
        names, pronouns = rng.choice([(FEMALE, 'she her her'), (MALE, 'he him his')])
        slots[who] = rng.choice([name for name in names if name != slots.get('name')])
        slots.update(zip((f'he{number}', f'him{number}', f'his{number}'), pronouns.split()))
    return slots


def fill(sentence, slots):
    """The sentence with its slots filled, a or an chosen, and a capital letter at the start."""
    sentence = re.sub(
        r'\ba/an (?=(.))',
        lambda article: 'an ' if article[1] in 'aeiou' else 'a ',
        sentence.format_map(slots),
    )
    return sentence[0].upper() + sentence[1:]


def draw_context(schema, variant, rng, taken):
    """The slots of a new story and its four sentences, a tuple that is not in the set `taken` and is added to it."""
    while True:
        slots = draw_slots(schema, rng)
        context = tuple(fill(phrase(schema.phrasings[i][variant], rng), slots) for i in range(4))
        if context not in taken:
            taken.add(context)
            return slots, context


def labelled_rows(schemas, n, rng, taken):
    """`n` rows of a CSV file, with contexts that are not in `taken`, in random order.

    Made in pairs. The two stories of a pair have the same schema and the same two ending phrasings at the same two positions, but different
    variants, so different answers (and names, things and neutral sentences of their own). Schemas take turns; so do, within a schema, the two
    orders of the endings.
    """
    rows = []
    for pair in range((n + 1) // 2):
        turn, which = divmod(pair, len(schemas))
        schema, order = schemas[which], ('ab', 'ba')[(turn + which) % 2]
        endings = [phrase_ending(schema, variant, rng) for variant in order]
        for variant in 'ab':
            slots, context = draw_context(schema, variant, rng, taken)
            story_id = uuid.UUID(int=rng.getrandbits(128), version=4)
            rows.append(
                [
                    str(story_id),
                    *context,
                    *(fill(ending, slots) for ending in endings),
                    order.index(variant) + 1,
                ]
            )
    rows = rows[:n]
    rng.shuffle(rows)
    return rows


def sample_files():
    """The two files of the sample: {file name: its rows}. No context is in both, or twice in one."""
    schemas, rng, taken = parse_schemas(), random.Random(SEED), set()
    return {name: labelled_rows(schemas, ROWS, rng, taken) for name in FILES}


def unlabelled_stories(n, seed):
    """Yield `n` whole stories as text, four sentences and their right ending, no two with one context, and none with a context of the two files."""
    schemas, rng = parse_schemas(), random.Random(seed)
    taken = {tuple(row[1:5]) for rows in sample_files().values() for row in rows}
    for _ in range(n):
        schema, variant = rng.choice(schemas), rng.choice('ab')
        slots, context = draw_context(schema, variant, rng, taken)
        yield ' '.join((*context, fill(phrase_ending(schema, variant, rng), slots)))


def write_whole(path, write):
    """Have `write(file)` write the text file `path`, which appears whole or not at all."""
    beside = f'{path}.part'
    try:
        with open(beside, 'w', encoding='utf-8', newline='') as f:
            write(f)
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def write_sample(folder=FOLDER):
    """Write the two CSV files into `folder`: the same bytes on any machine, since only `random.Random` is used."""
    os.makedirs(folder, exist_ok=True)
    for name, rows in sample_files().items():
        write_whole(
            os.path.join(folder, name),
            lambda f, rows=rows: csv.writer(f, lineterminator='\n').writerows([COLUMNS, *rows]),
        )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description='Write the sample stories: without options the two CSV files in data/sample, byte for byte as they '
        'are; with --unlabelled text to pre-train on, from the same schemas but without any story of those files.'
    )
    parser.add_argument(
        '--unlabelled',
        type=int,
        metavar='N',
        help='write N whole stories, one a line, to the file --out',
    )
    parser.add_argument(
        '--seed', type=int, default=7, help='of the unlabelled stories (default: %(default)s)'
    )
    parser.add_argument('--out', metavar='FILE', help='where to write the unlabelled stories')
    args = parser.parse_args(argv)
    if (args.unlabelled is None) != (args.out is None):
        parser.error('--unlabelled N and --out FILE go together')
    if args.unlabelled is not None and args.unlabelled < 1:
        parser.error('--unlabelled must be at least 1')
    try:
        if args.out is None:
            write_sample()
            print(f'{FOLDER}: {len(FILES)} files, {ROWS} stories each')
        else:
            write_whole(
                args.out,
                lambda f: f.writelines(
                    f'{story}\n' for story in unlabelled_stories(args.unlabelled, args.seed)
                ),
            )
            print(f'{args.out}: {args.unlabelled} stories')
    except OSError as error:
        parser.error(f'cannot write: {error}')


if __name__ == '__main__':
    main()
