# ruff: noqa: RUF001
"""What is read in answers of language models: a table of phrasings, and what must stay unread."""

import pytest

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation.answer_text import AnswerReader

SENTENCE, DURATION = 'a person opens the door', 60.0

ONE_SPAN = [  # all of them say 3.2 to 8.1 s
    # prompts of the published models
    'The given query happens in 3.2 - 8.1 seconds.',  # TimeChat
    'The event happens in 3.2 - 8.1 seconds.',
    'from 3.2 to 8.1.',  # VTimeLLM
    'From 3.2 to 8.1',
    'The event happens from 3.2 to 8.1.',
    'From Second{3.2} to Second{8.1}',  # TimeMarker
    '<3.2> <8.1>',
    '<3.2><8.1>',
    '<3.2 seconds><8.1 seconds>',
    '<3.2s> to <8.1s>',
    '<time>3.2 - 8.1</time>',
    '<start>3.2</start><end>8.1</end>',
    '0003.2 - 0008.1 seconds',
    '<think>It may be from 1 s to 2 s.</think><answer>3.2 to 8.1</answer>',  # Time-R1
    '<think>At 0:30 he leaves.</think>\n<answer>\n3.2 to 8.1\n</answer>',
    'The door, from 0 s to 1 s?</think>From 3.2s to 8.1s.',
    '◁think▷20 s to 30 s◁/think▷ 3.2 s - 8.1 s',
    'Let me look: from 0:10 to 0:12 he waits.\n\n**Final Answer:** 3.2s - 8.1s',
    'The answer is: [3.2, 8.1]',
    r'Thus $\boxed{3.2 \text{ to } 8.1}$',
    r'\boxed{[3.2, 8.1]}',
    # sentences
    'from 3.2 s to 8.1 s',
    'From 3.2 seconds to 8.1 seconds, the person opens the door.',
    'A person opens the door from 3.2 to 8.1 seconds.',
    '"a person opens the door" happens from 3.2 to 8.1',
    'The person opens the door between 3.2 s and 8.1 s of the video.',
    'between 3.2 and 8.1 seconds',
    'It occurs between the 3.2 second mark and the 8.1 second mark.',
    'The event starts at 3.2 seconds and ends at 8.1 seconds.',
    'It begins at around 3.2s, and finishes at 8.1s.',
    'Starting at 3.2 and ending at 8.1.',
    'Start: 3.2s\nEnd: 8.1s',
    'Start time: 3.2, end time: 8.1',
    '**Start:** 3.2 seconds\n**End:** 8.1 seconds',
    'The video is 60 seconds long. The event takes place from 3.2 s through 8.1 s.',
    'From 3.2 s to 8.1 s (4.9 seconds), I am 90% sure.',
    'The moment is at 3.2–8.1 s.',
    '3.2s–8.1s',
    '3.2 — 8.1 seconds',
    '3.2 - 8.1',
    '3.2-8.1s',
    '3.2 s ~ 8.1 s',
    '3.2s → 8.1s',
    '3.2s -> 8.1s',
    '3.2 s until 8.1 s',
    't=3.2s to t=8.1s',
    'from ~3.2s to ~8.1s',
    'The event lasts from 3.2 s to 8.1 s.',
    'It begins at 3.2 s and continues until 8.1 s.',
    'At 3.2 s, ending at 8.1 s.',
    'Timestamps: 3.2, 8.1',
    'The clip is 60 s long, from 0:00 to 1:00. The person opens the door from 3.2 s to 8.1 s.',
    'From 3.2 seconds to 8.1 seconds (frames 96-243)',
    'I am not sure, but it happens from 3.2 s to 8.1 s.',
    'seconds 3.2 to 8.1',
    '3.2 8.1',
    '3.2, 8.1',
    '3200 ms to 8100 ms',
    '- 3.2 s to 8.1 s',
    '1. 3.2 s - 8.1 s',
    '3.2 s to 8.1 s. That is, from 3.2 s to 8.1 s.',
    'There are 2 people in scene 3. One opens the door from 3.2 s to 8.1 s.',
    'The person opens the door from 3.2 s to 8.1 s [1].',
    # brackets and JSON
    '[3.2, 8.1]',
    '[3.2,8.1]',
    '[[3.2, 8.1]]',
    '(3.2, 8.1)',
    '{3.2, 8.1}',
    '[3.2s, 8.1s]',
    '["3.2s", "8.1s"]',
    'The relevant window is [3.2, 8.1].',
    '{"start": 3.2, "end": 8.1}',
    "{'start': 3.2, 'end': 8.1}",
    '```json\n{"start_time": 3.2, "end_time": 8.1}\n```',
    '```json\n[{"start": "3.2s", "end": "8.1s", "label": "opens the door"}]\n```',
    'Here is the result:\n{"event": "2 people, 4-5", "timestamps": [3.2, 8.1], "score": 0.9}',
    '{"start_sec": 3.2, "end_sec": 8.1, "confidence": [0.5, 0.7]}',
    '{"start_ms": 3200, "end_ms": 8100}',
    '{"answer": "from 3.2 s to 8.1 s"}',
    '{"start_time": "<3.2>", "end_time": "<8.1>"}',
    '{"a person opens the door": [3.2, 8.1]}',
    '<t_start>3.2</t_start><t_end>8.1</t_end>',
    '{"time_range": "3.2 - 8.1"}',
    '{"segments": [{"begin": "00:03.2", "end": "00:08.1"}]}',
    # clocks
    '00:03.2 - 00:08.1',
    '00:00:03.200 --> 00:00:08.100',
    '00:00:03,200 --> 00:00:08,100',
    'between 00:03.2 and 00:08.1',
    '[00:03.20, 00:08.10]',
    '[00:03.2] - [00:08.1]',
    'It happens from the 0:03.2 mark to the 0:08.1 mark.',
    '0 min 3.2 s to 0 min 8.1 s',
    '0m3.2s - 0m8.1s',
    # decimal commas, other languages and scripts
    'von 3,2 bis 8,1 Sekunden',
    'Das Ereignis findet zwischen 3,2 s und 8,1 s statt.',
    'Die Person öffnet die Tür von Sekunde 3,2 bis Sekunde 8,1.',
    'de 3,2 à 8,1 secondes',
    'La personne ouvre la porte entre 3,2 et 8,1 secondes.',
    'La persona abre la puerta de 3,2 a 8,1 segundos.',
    'desde el segundo 3.2 hasta el segundo 8.1',
    'entre os segundos 3,2 e 8,1',
    'La persona apre la porta dal secondo 3,2 al secondo 8,1.',
    'с 3,2 по 8,1 секунду',
    'Человек открывает дверь между 3,2 и 8,1 секундами.',
    '3.2秒到8.1秒',
    '该事件发生在第3.2秒至第8.1秒。',
    '从3.2秒到8.1秒,一个人打开了门。',
    '３．２秒～８．１秒',
    'ドアは3.2秒から8.1秒まで開きます。',
    '3.2초부터 8.1초까지 문을 엽니다.',
    '3.2 सेकंड से 8.1 सेकंड तक',
    'من 3.2 إلى 8.1 ثانية',
    'من ٣٫٢ إلى ٨٫١ ثانية',
    'từ 3,2 giây đến 8,1 giây',
    'dari 3,2 detik hingga 8,1 detik',
    'van 3,2 tot 8,1 seconden',
    'Start: 3.2秒, End: 8.1秒',
    '开始时间:3.2秒,结束时间:8.1秒',
]

OTHER_SPANS = [
    ('00:03 - 00:08', [(3, 8)]),
    ('**[00:03 - 00:08]** The person opens the door.', [(3, 8)]),
    ('0:03–0:08', [(3, 8)]),
    ("The action occurs between 0'03'' and 0'08''.", [(3, 8)]),
    ('from 23 to 45', [(23, 45)]),
    ('12秒至15秒', [(12, 15)]),
    ('From the 3rd second to the 8th second.', [(3, 8)]),
    ('from second 3 to second 8', [(3, 8)]),
    ('0.5 to 0.9 minutes', [(30, 54)]),
    ('From 0 to 0.5 min.', [(0, 30)]),
    ('1 s to 2 s, and again from 7 s to 9 s', [(1, 2), (7, 9)]),
    ('[[1, 2], [7.5, 9]]', [(1, 2), (7.5, 9)]),
    ('[1, 2], [7, 9]', [(1, 2), (7, 9)]),
    ('1. 0:01 - 0:02\n2. 0:07 - 0:09', [(1, 2), (7, 9)]),
    ('from 1 to 2 and from 7 to 9', [(1, 2), (7, 9)]),
    ('0:01 - 0:02, 0:07 - 0:09', [(1, 2), (7, 9)]),
    ('[0:01 - 0:02], [0:07 - 0:09]', [(1, 2), (7, 9)]),
    ('1-2, 7-9', [(1, 2), (7, 9)]),
    ('[{"start": 1, "end": 2}, {"start": 7, "end": 9}]', [(1, 2), (7, 9)]),
    ('20% - 45%', [(12, 27)]),
    ('from 20% to 45% of the video', [(12, 27)]),
    ('20-45%', [(12, 27)]),
    ('{"start_percent": 20, "end_percent": 45}', [(12, 27)]),
    ('70 s to 80 s', [(70, 80)]),  # read, though the video ends before
    ('it lasts for 3 to 5 seconds, from 10 s to 14 s', [(10, 14)]),
]

ABSENT = [
    'The event does not occur in the video.',
    "It doesn't happen.",
    'This does not take place in the given video.',
    'The described event never occurs.',
    'A person opens the door: not present in the video. The moment is not shown.',
    'No such event was found.',
    'The query "a person opens the door" is not found in the video.',
    'The video does not show a person opens the door.',
    'Event not found.',
    'There is no matching moment.',
    'None',
    'Not found.',
    '[]',
    '{"start": null, "end": null}',
    "{'start': None, 'end': None}",
    '{"answer": "it does not occur"}',
    '{"segments": []}',
    '<think>From 3 s to 8 s? No.</think> The event does not happen in the video.',
    'Das Ereignis kommt im Video nicht vor.',
    "L'événement ne se produit pas dans la vidéo.",
    'El evento no ocurre en el video.',
    'O evento não ocorre no vídeo.',
    'Это событие не происходит на видео.',
    '视频中没有发生该事件。',
    'この出来事は動画の中で発生しません。',
    '해당 사건은 영상에 나타나지 않습니다.',
]

UNREAD = [
    '',
    'I am sorry, I cannot watch videos.',
    'The person opens the door.',
    'At the beginning of the video.',
    'Throughout the video',
    'from three to eight seconds',
    # a single time
    'The person opens the door at 3.2 s.',
    'at 00:03',
    '3.2',
    '3,8',
    '[3.2]',
    '[[3.2]]',
    '{"start": 3.2}',
    '{"time": 3.2}',
    'from 5 s to 5 s',
    'after 10 seconds',
    'The event starts at 3.2 s.',
    # counts, names, ratings, amounts
    '2 people',
    'from 2 to 5 people',
    'There are 2-3 people.',
    '2 to 3 persons open the door',
    'scene 3-5',
    'Scenes 3 to 5 show it.',
    'See steps 1 to 4.',
    'pages 10-12',
    'I would rate it 4-5.',
    'The score goes from 10 to 20.',
    'The camera zooms from 1 to 5.',
    'It costs from $3 to $8.',
    'The ratio is between 4:3 and 16:9',
    'confidence between 80% and 90%',
    '80-90% sure',
    'The resolution changes from 720p to 1080p.',
    'version 1.2.3 to 1.2.4',
    # years, dates, times of day
    'This was filmed from 1990 to 1995 in Paris.',
    'between 2019 and 2021, a person lived there',
    '2023-10-12',
    'from 10/12/2023 to 11/12/2023',
    'The clock shows 10:30 to 11:00.',
    'from 3:45 PM to 4:00 PM',
    'from 0:03 to 0:08 in the morning',
    'between 10:30 and 11:00',
    "from 3 o'clock to 8 o'clock",
    'The shop is open 9-17 h',
    # how long something takes
    'It takes 3 to 5 seconds.',
    'The action lasts about 3-5 seconds.',
    'He waits for 3 to 5 seconds.',
    'The duration of the event is 3 to 5 seconds.',
    'It occurs 3 s to 8 s before the end.',
    'a pause 3 to 5 seconds long',
    'The first 3 to 5 seconds',
    'a 3-5 second pause',
    'The person opens the door 3 to 5 seconds later.',
    'It takes him between 3 and 8 seconds.',
    'a delay of 3 to 8 seconds',
    'Within 3 to 8 seconds of arriving',
    '3 to 8 seconds elapse.',
    'Fast-forward 3 to 8 seconds.',
    'after 3 to 8 seconds',
    # how long the video is, refusals and examples
    'The video runs from 0:00 to 1:00.',
    'Video length: 0:00 - 0:30',
    'The clip is 30 seconds long, from 0:00 to 0:30.',
    'The frames were sampled from 0:00 to 0:30.',
    'I cannot see it in the frames from 0 s to 30 s.',
    "I'm unable to determine it; the video has 0:00 - 0:30.",
    'Please answer in the format from 3.0 s to 8.0 s.',
    'For example, "from 3 s to 8 s".',
    'I see frames from 0 s to 30 s and cannot determine when it happens.',
    'The score was 0:05 - 0:09.',
    # seconds, or a part of the video
    'from 0.1 to 0.4 of the video',
    '[0.1, 0.4] of the whole video',
    # more times than can be paired, and times that cannot be paired
    '[3.2, 8.1, 12.0]',
    '[1, 2, 3, 4]',
    '[3,2, 8,1]',
    '{"timestamps": [3.2, 8.1, 12.0]}',
    '1 s - 2 s - 3 s',
    '0:03, 0:05, 0:10',
    '<1 s> <2 s> <3 s>',
    '3.2 8.1 12.0',
    '[0.1, 3.2], [8.1]',
    'from 23 to 45, then 50',
    'from 3 to 0:08',
    'from 3 s to 20%',
    'from 3 s to frame 240',
    '1 min 5 s to 20 s',
    '[-1, -1]',
    'from -2 s to 5 s',
    '12,345 s to 20,500 s',
    '1:75 to 1:90',
    '00:00:03:10 - 00:00:08:05',
    '1e400',
    'from 1' + '0' * 400 + ' s to 2 s',
    # contradictions and reservations
    'It does not occur from 3 s to 8 s.',
    'not from 3 s to 8 s',
    'The person is not visible from 3 s to 8 s.',
    'The answer does not occur to me.',
    'From 5.0 seconds to the end of the video.',
    'From 3 s to 8 s. Wait, no, from 10 s to 12 s.',
    '<answer>3 s to 8 s</answer><answer>10 s to 12 s</answer>',
    '<think>From 3 s to 8 s',
    'The video does not contain enough information.',
    'The exact timestamps are not shown.',
    'The face of the person is not visible.',
    'The man does not appear to move.',
    'It is not clear whether it occurs.',
    'If it does not occur, answer none.',
    'It does not occur until the end.',
    'The event does not happen in the first part.',
    'N/A',
    'Answer: B',
    'from 3.2 to 8.1 (score: 0.9)',
    'No.',
    '{"event": "door"}',
    '{"bbox": [3, 8]}',
    # frames without a rate
    'from frame 96 to frame 243',
    '{"start_frame": 96, "end_frame": 243}',
    '第96帧到第243帧',
]


def spans(answer, reader=None, sentence=SENTENCE):
    found = (reader or AnswerReader()).read(answer, sentence, DURATION)
    return found.reading, [tuple(round(time, 6) for time in span) for span in found.spans]


def test_the_table_is_long_enough():
    answers = [*ONE_SPAN, *(answer for answer, _ in OTHER_SPANS), *ABSENT, *UNREAD]
    assert len(set(answers)) == len(answers) > 200


@pytest.mark.parametrize('answer', ONE_SPAN)
def test_one_span_is_read(answer):
    assert spans(answer) == ('times', [(3.2, 8.1)])


@pytest.mark.parametrize(('answer', 'expected'), OTHER_SPANS)
def test_spans_are_read_in_the_order_of_the_text(answer, expected):
    assert spans(answer) == ('times', expected)


@pytest.mark.parametrize('answer', ABSENT)
def test_absence_is_read(answer):
    assert spans(answer) == ('absent', [])


@pytest.mark.parametrize('answer', UNREAD)
def test_what_is_not_sure_stays_unread(answer):
    assert spans(answer) == ('unread', [])


@pytest.mark.parametrize(
    ('settings', 'answer', 'expected'),
    [
        (dict(frame_rate=30), 'from frame 96 to frame 243', [(3.2, 8.1)]),
        (dict(frame_rate=30), 'frames 96-243', [(3.2, 8.1)]),
        (dict(frame_rate=30), '{"start_frame": 96, "end_frame": 243}', [(3.2, 8.1)]),
        (dict(frame_rate=30), '第96帧到第243帧', [(3.2, 8.1)]),
        (dict(frame_rate=30), 'from 3.2 to 8.1', [(3.2, 8.1)]),
        (dict(num_frames=120), 'Frame 10 to frame 20', [(5, 10)]),
        (dict(unit='frames', frame_rate=2), '[10, 20]', [(5, 10)]),
        (dict(unit='percent'), 'from 10 to 20.', [(6, 12)]),
        (dict(unit='percent'), 'from 3.2 s to 8.1 s', [(3.2, 8.1)]),
        (dict(unit='fraction'), '{0.1,0.2}', [(6, 12)]),
        (dict(unit='fraction'), 'from 0.1 to 0.2 of the video', [(6, 12)]),
        (dict(), '0.1 s - 0.4 s of the video', [(0.1, 0.4)]),
        (dict(), '0.1 to 8.1 of the video', [(0.1, 8.1)]),
        (dict(unit='milliseconds'), '[3200, 8100]', [(3.2, 8.1)]),
        (dict(unit='minutes'), '0.5 - 0.75', [(30, 45)]),
    ],
)
def test_settings_say_what_numbers_are(settings, answer, expected):
    assert spans(answer, AnswerReader(**settings)) == ('times', expected)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(unit='hours'), "unit='hours'"),
        (dict(unit='frames'), 'bare numbers are frames: give their rate'),
        (dict(frame_rate=0), 'frame_rate=0'),
        (dict(frame_rate=2, num_frames=8), 'give one of them'),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AnswerReader(**settings)


def test_reversed_spans_are_swapped_and_counted():
    found = AnswerReader().read('from 8 s to 3 s, and from 10 s to 12 s', SENTENCE, DURATION)
    assert (found.spans, found.num_swapped) == ([(3, 8), (10, 12)], 1)


@pytest.mark.parametrize(
    ('sentence', 'answer', 'expected'),
    [
        ('A man counts from 2 to 5.', 'A man counts from 2 to 5.', 'unread'),
        ('A man counts from 2 to 5.', 'The man is counting from 2 to 5', 'unread'),
        ('A man counts from 2 to 5.', '"a man counts from 2 to 5": 10 - 12', 'times'),
        ('the clock shows 0:03 to 0:08', 'The clock shows 0:03 to 0:08.', 'unread'),
        ('two people wait', '2 to 3 people wait', 'unread'),
        ('a scene with a dog', 'scene 3 - 5', 'unread'),
        ('a dog does not occur', 'a dog does not occur: from 3 s to 8 s', 'times'),
    ],
)
def test_what_repeats_the_sentence_is_no_answer(sentence, answer, expected):
    assert spans(answer, sentence=sentence)[0] == expected


@pytest.mark.parametrize('answer', ['[' * 20_000, '1' * 100_000, '3 s to ' * 5_000, '<' * 50_000])
def test_long_answers_that_run_away_are_read_quickly(answer):
    assert spans(answer) == ('unread', [])
