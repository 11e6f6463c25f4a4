"""make.py - writes chats.jsonl, the calibration data that nibble carries for people who have none: `quantize --builtin-data`.

48 conversations of text in 22 languages and 20 about pictures that this script draws (charts, forms, shapes, landscapes,
patterns).  All of it was written for this project and has its licence.  The pictures are drawn from fixed seeds; run it with
Pillow: python3 tools/builtin/make.py > tools/builtin/chats.jsonl
"""
import base64
import io
import json
import math
import random
import sys

from PIL import Image, ImageDraw, ImageFont

# ---- text: (system or None, [question, answer, question, answer, ...]) ------------------------------------------------
TEXT = [
    (None, ["Explain to a beginner what an operating system does.",
            "An operating system sits between programs and the machine. It decides which program may use the processor next, hands out "
            "memory, and turns simple requests such as \"open this file\" into the many small steps that a disk needs. It also keeps "
            "programs apart, so that one that crashes does not take the others with it.",
            "Why do phones need one too?",
            "A phone is a small computer. It runs several apps at once, has storage, a radio and sensors to share, and needs the same "
            "protection between apps. Its system is only tuned for battery life and touch."]),
    (None, ["Write a Python function that returns the n-th Fibonacci number without recursion.",
            "```python\ndef fibonacci(n):\n    if n < 0:\n        raise ValueError(\"n must not be negative\")\n    a, b = 0, 1\n"
            "    for _ in range(n):\n        a, b = b, a + b\n    return a\n```\n\nIt keeps only the last two numbers, so it needs "
            "constant memory and n additions. `fibonacci(10)` is 55."]),
    (None, ["A train leaves at 9:40 and arrives at 13:05. How long is the journey, and what is its average speed over 287 km?",
            "From 9:40 to 13:05 are 3 hours and 25 minutes, which is 3 + 25/60 = 3.4167 hours.\n\nAverage speed = 287 km / 3.4167 h "
            "= 84 km/h."]),
    ("You answer in one short paragraph.",
     ["What caused the fall of Constantinople in 1453?",
      "The city had been shrinking for two centuries, cut off from its provinces and short of soldiers and money. Mehmed II surrounded "
      "it with a far larger army, brought cannon heavy enough to break the old land walls, and carried ships overland into the "
      "Golden Horn, so that the few defenders had to guard every side at once."]),
    (None, ["Turn this into JSON: Anna Berg, 34, lives in Oslo, speaks Norwegian, English and some Polish.",
            "```json\n{\n  \"name\": \"Anna Berg\",\n  \"age\": 34,\n  \"city\": \"Oslo\",\n  \"languages\": [\n    {\"name\": \"Norwegian\", "
            "\"level\": \"native\"},\n    {\"name\": \"English\", \"level\": \"fluent\"},\n    {\"name\": \"Polish\", \"level\": \"basic\"}\n  ]\n}\n```"]),
    (None, ["My sourdough bread is dense and sour. What should I change?",
            "Dense and very sour usually means that the dough fermented too long while the yeast was weak.\n\n1. Feed the starter twice "
            "a day for three days and use it when it has just doubled.\n2. Keep the dough at 24 to 26 °C and stop the first rise "
            "when it has grown by about three quarters.\n3. Use 15 to 20 % starter, not more.\n4. Bake when a fingertip's dent comes "
            "back slowly."]),
    (None, ["Compare a list and a dictionary in a table.",
            "| | list | dictionary |\n|---|---|---|\n| order | by position | by insertion |\n| access | index, `a[3]` | key, `d[\"name\"]` |\n"
            "| lookup of a value | linear | constant on average |\n| duplicates | allowed | keys are unique |\n| typical use | sequences | "
            "records, counting |"]),
    (None, ["Write an SQL query that finds the three customers with the highest total of orders in 2024.",
            "```sql\nSELECT c.id, c.name, SUM(o.amount) AS total\nFROM customers AS c\nJOIN orders AS o ON o.customer_id = c.id\n"
            "WHERE o.ordered_at >= DATE '2024-01-01' AND o.ordered_at < DATE '2025-01-01'\nGROUP BY c.id, c.name\nORDER BY total DESC\n"
            "LIMIT 3;\n```"]),
    (None, ["为什么天空是蓝色的？", "阳光进入大气层后，会被空气分子散射。波长越短，散射越强，所以蓝光比红光散射得多得多，从四面八方射入我们的眼睛。"
            "紫光虽然散射更强，但太阳光里紫光较少，人眼对它也不敏感，因此天空看起来是蓝色的。", "那日落时为什么是红色？",
            "日落时阳光要穿过更厚的大气层，蓝光在途中大多被散射掉了，剩下的主要是橙光和红光。"]),
    (None, ["请用一段话介绍如何制定每周的学习计划。",
            "先列出这一周必须完成的任务，估计每项需要的时间，再把最难的内容安排在精力最好的时段。每天留出半小时复习旧知识，周末用一小时检查完成情况。"
            "计划不要排满，留下两成的空余时间来应付意外，这样才能长期坚持。"]),
    (None, ["把下面的句子翻译成英文：这本书不仅有趣，而且让我明白了耐心的重要性。",
            "This book is not only entertaining; it also made me understand how important patience is."]),
    (None, ["請解釋什麼是複利，並舉一個例子。",
            "複利是指利息也會產生利息。假設本金一萬元，年利率百分之五：第一年底得到五百元利息，第二年就以一萬零五百元計算，利息變成五百二十五元。"
            "時間越長，差距越明顯，三十年後本利合計約四萬三千二百元。"]),
    (None, ["¿Cuál es la diferencia entre «ser» y «estar»?",
            "«Ser» se usa para lo que define a alguien o algo: la identidad, el origen, la profesión o una cualidad permanente (es médica, "
            "son de Lima). «Estar» expresa un estado, un lugar o el resultado de un cambio (está cansado, la tienda está cerrada). "
            "Algunos adjetivos cambian de sentido: «es listo» significa inteligente; «está listo», preparado."]),
    (None, ["Dame una receta sencilla de gazpacho para cuatro personas.",
            "Ingredientes: 1 kg de tomates maduros, 1 pepino, 1 pimiento verde, 1 diente de ajo, 50 ml de aceite de oliva, vinagre y sal.\n\n"
            "Lava y trocea las verduras, tritúralas con el ajo, añade el aceite poco a poco y ajusta de sal y vinagre. Cuela si lo "
            "prefieres fino y enfría al menos dos horas."]),
    (None, ["Explique-moi le principe de la photosynthèse en quelques phrases.",
            "Les plantes captent la lumière grâce à la chlorophylle. Cette énergie sert à casser des molécules d'eau : l'oxygène est "
            "libéré, tandis que l'hydrogène permet de transformer le dioxyde de carbone en sucres. La plante stocke ainsi sous forme "
            "chimique l'énergie du soleil, dont vivent ensuite presque tous les autres êtres vivants.",
            "Et la nuit ?", "La nuit, il n'y a plus de lumière : la plante respire comme nous, elle consomme de l'oxygène et une partie "
            "des sucres fabriqués pendant la journée."]),
    (None, ["Rédige un courriel poli pour reporter une réunion de jeudi à vendredi.",
            "Objet : report de notre réunion\n\nBonjour Madame Lefèvre,\n\nUn imprévu m'oblige à vous demander s'il serait possible de "
            "déplacer notre réunion de jeudi à vendredi, à la même heure. Je vous prie de m'excuser pour ce changement et m'adapterai "
            "volontiers à vos disponibilités.\n\nBien cordialement,\nPaul Girard"]),
    (None, ["Was ist der Unterschied zwischen Wetter und Klima?",
            "Wetter ist der Zustand der Atmosphäre an einem Ort zu einem bestimmten Zeitpunkt, also etwa der Regen von heute Nachmittag. "
            "Klima ist die Statistik des Wetters über mindestens dreißig Jahre: Mittelwerte, Schwankungen und wie häufig Extreme "
            "auftreten. Ein kalter Winter sagt deshalb wenig über das Klima aus."]),
    (None, ["Wie entkalke ich einen Wasserkocher ohne Chemie aus dem Laden?",
            "Fülle ihn zur Hälfte mit Wasser, gib zwei Esslöffel Zitronensäure dazu und lass die Mischung eine halbe Stunde kalt stehen. "
            "Nicht kochen, sonst bildet sich schwer lösliches Calciumcitrat. Danach zweimal gründlich ausspülen."]),
    (None, ["Почему солёная вода замерзает при более низкой температуре?",
            "Ионы соли мешают молекулам воды выстраиваться в кристаллическую решётку льда. Чтобы лёд стал устойчивее раствора, нужно "
            "охладить его сильнее. Морская вода с обычной солёностью замерзает примерно при −1,8 °C."]),
    (None, ["Напиши короткое описание вакансии для библиотекаря.",
            "Городская библиотека ищет библиотекаря на полный день. Обязанности: выдача и приём книг, консультации читателей, подготовка "
            "выставок и ведение каталога. Требуются внимательность, грамотная речь и уверенное владение компьютером; опыт работы "
            "приветствуется. График — вторник–суббота, отпуск 28 дней."]),
    (None, ["ما الفرق بين الطاقة المتجددة وغير المتجددة؟",
            "الطاقة المتجددة تأتي من مصادر تتجدد باستمرار مثل الشمس والرياح والمياه الجارية، أما غير المتجددة فتعتمد على مخزون محدود مثل النفط والفحم والغاز. "
            "الأولى لا تنفد وانبعاثاتها قليلة، لكن إنتاجها يتغير مع الطقس ويحتاج إلى تخزين."]),
    (None, ["اكتب رسالة شكر قصيرة إلى معلمة.",
            "معلمتي العزيزة،\nأشكرك من القلب على صبرك واهتمامك طوال العام. بفضل تشجيعك أصبحت القراءة متعة أنتظرها كل يوم. أتمنى لك دوام الصحة والسعادة.\nمع التقدير، سارة"]),
    (None, ["पानी बचाने के तीन आसान तरीके बताइए।",
            "1. नल बंद रखकर दाँत साफ़ करें और टपकते नल तुरंत ठीक कराएँ।\n2. कपड़े धोने की मशीन पूरी भरकर ही चलाएँ और उस पानी से फ़र्श साफ़ करें।\n"
            "3. बारिश का पानी टंकी में जमा करके पौधों को दें।"]),
    (None, ["गणित में 'औसत' क्या होता है? उदाहरण दीजिए।",
            "औसत निकालने के लिए सभी संख्याओं को जोड़कर उनकी गिनती से भाग देते हैं। जैसे 4, 7 और 10 का योग 21 है और संख्याएँ तीन हैं, इसलिए औसत 21 ÷ 3 = 7 है।"]),
    (None, ["日本の電車で気をつけるマナーを教えてください。",
            "車内では携帯電話をマナーモードにし、通話は控えます。リュックは前に抱えるか網棚に置き、降りる人が先、乗る人は後です。優先席では必要な人に席を譲りましょう。"
            "混雑しているときは、ドア付近の人がいったん降りると流れがよくなります。", "飲食はどうですか。",
            "新幹線や特急では一般的ですが、通勤電車ではにおいの強い食べ物は避けるのが無難です。"]),
    (None, ["「猫」を主人公にした俳句を一つ作ってください。", "日だまりに\n猫の背のびる\n春の午後"]),
    (None, ["김치는 왜 시간이 지나면 신맛이 나나요?",
            "배추에 있는 젖산균이 당을 먹고 젖산을 만들기 때문입니다. 온도가 높을수록 발효가 빨라져 금방 시어지고, 냉장고에서는 천천히 익습니다. "
            "신김치는 상한 것이 아니므로 찌개나 볶음밥에 쓰면 맛이 좋습니다."]),
    (None, ["회의를 짧게 끝내는 방법을 알려 주세요.",
            "회의 전에 목적과 안건을 한 줄씩 적어 보내고, 결정할 사람만 부르세요. 안건마다 시간을 정하고 끝나면 바로 담당자와 기한을 기록합니다. "
            "보고만 필요한 내용은 문서로 대신하는 것이 좋습니다."]),
    (None, ["Como funciona o voto em segundo turno no Brasil?",
            "Se nenhum candidato a presidente, governador ou prefeito de cidade com mais de 200 mil eleitores alcançar mais da metade dos "
            "votos válidos, os dois mais votados disputam um segundo turno, em que vence quem tiver a maioria."]),
    (None, ["Quais são os planetas do sistema solar, em ordem?",
            "A partir do Sol: Mercúrio, Vênus, Terra, Marte, Júpiter, Saturno, Urano e Netuno. Os quatro primeiros são rochosos; os outros "
            "quatro são gigantes de gás ou de gelo."]),
    (None, ["Come si prepara un buon caffè con la moka?",
            "Riempi la caldaia d'acqua fino alla valvola, colma il filtro di caffè senza pressarlo e chiudi bene. Scalda a fuoco basso con "
            "il coperchio aperto e togli la moka appena comincia a gorgogliare. Mescola prima di versare, perché il primo caffè che sale "
            "è più forte dell'ultimo."]),
    (None, ["Türkiye'nin yedi coğrafi bölgesini yazar mısın?",
            "Marmara, Ege, Akdeniz, İç Anadolu, Karadeniz, Doğu Anadolu ve Güneydoğu Anadolu. Yüz ölçümü en büyük olan Doğu Anadolu, nüfusu "
            "en kalabalık olan ise Marmara Bölgesi'dir."]),
    (None, ["Làm thế nào để nhớ từ vựng tiếng Anh lâu hơn?",
            "Hãy học mỗi ngày khoảng mười từ, đặt câu với từng từ và ôn lại sau một ngày, ba ngày rồi một tuần. Đọc truyện ngắn hoặc nghe "
            "podcast giúp bạn gặp lại từ trong ngữ cảnh, nhờ đó nhớ tự nhiên hơn là chép nhiều lần."]),
    (None, ["ช่วยแนะนำวิธีดูแลต้นไม้ในบ้านหน่อย",
            "วางต้นไม้ใกล้หน้าต่างที่มีแสงรำไร รดน้ำเมื่อหน้าดินแห้ง และใช้กระถางที่มีรูระบายน้ำ เช็ดฝุ่นบนใบเดือนละครั้ง และใส่ปุ๋ยเจือจางในฤดูร้อน ถ้าใบเหลืองมักเป็นเพราะรดน้ำมากเกินไป"]),
    (None, ["מה ההבדל בין וירוס לחיידק?",
            "חיידק הוא תא חי שיכול להתרבות בעצמו, ולעיתים קרובות אפשר לטפל בו באנטיביוטיקה. וירוס קטן ממנו בהרבה, ואינו מתרבה אלא בתוך תא של יצור אחר, "
            "ולכן אנטיביוטיקה אינה משפיעה עליו."]),
    (None, ["Γιατί αλλάζουν οι εποχές;",
            "Ο άξονας της Γης έχει κλίση περίπου 23,5 μοιρών. Καθώς ο πλανήτης γυρίζει γύρω από τον Ήλιο, άλλοτε το βόρειο και άλλοτε το νότιο "
            "ημισφαίριο δέχεται πιο κάθετα το φως, και έτσι έχει καλοκαίρι."]),
    (None, ["Яка різниця між борщем і щами?",
            "Головна відмінність — буряк: у борщі він обов'язковий і дає колір та солодкуватий смак, а щі варять із капусти без буряка. До борщу "
            "часто додають сало з часником і подають пампушки."]),
    (None, ["Napisz krótkie ogłoszenie o zgubionym kocie.",
            "Zaginął kot! Rudy, z białą łapką, reaguje na imię Mruczek. Ostatnio widziany w piątek wieczorem przy ulicy Lipowej. Jest oswojony, "
            "ale płochliwy. Prosimy o kontakt: 600 000 000. Na znalazcę czeka nagroda."]),
    (None, ["Eleza kwa kifupi umuhimu wa misitu.",
            "Misitu huhifadhi maji, huzuia mmomonyoko wa udongo na hutoa hewa safi. Pia ni makazi ya wanyama wengi na chanzo cha kuni, dawa na "
            "chakula kwa watu. Tukikata miti bila kupanda mingine, mvua hupungua na mashamba hukauka."]),
    (None, ["বাংলাদেশের ঋতু কয়টি ও কী কী?",
            "বাংলাদেশে ছয়টি ঋতু: গ্রীষ্ম, বর্ষা, শরৎ, হেমন্ত, শীত ও বসন্ত। প্রতিটি ঋতু প্রায় দুই মাস থাকে। বর্ষায় নদী-নালা ভরে যায়, আর শরতে আকাশ থাকে নীল ও কাশফুল ফোটে।"]),
    (None, ["Hoe werkt een warmtepomp?",
            "Een warmtepomp haalt warmte uit de buitenlucht, de bodem of het grondwater. Een koudemiddel verdampt daar bij lage temperatuur, "
            "een compressor perst het samen, waardoor het heet wordt, en die warmte gaat naar de radiatoren. Met één kilowattuur stroom "
            "verplaatst hij zo drie tot vijf kilowattuur warmte."]),
    (None, ["Solve 2x² − 5x − 3 = 0 and check the result.",
            "The discriminant is 25 + 24 = 49, so x = (5 ± 7) / 4, which gives x₁ = 3 and x₂ = −1/2.\n\nCheck: 2·9 − 15 − 3 = 0 and "
            "2·(1/4) + 5/2 − 3 = 0. Both are right."]),
    (None, ["Summarise in two sentences: The council met on Tuesday to discuss the new bicycle lanes. Shop owners feared losing parking "
            "spaces, while cyclists pointed to four accidents last year. After three hours the council agreed on a trial of six months "
            "on one street, with a count of traffic before and after.",
            "After a long debate between shop owners worried about parking and cyclists worried about safety, the council agreed on a "
            "six-month trial of bicycle lanes on one street. Traffic will be counted before and after."]),
    (None, ["Fix the bug:\n\nfor (int i = 0; i <= n; i++)\n    sum += a[i];",
            "The loop runs one step too far: an array of n elements has indices 0 to n − 1, so a[n] is out of bounds.\n\n```c\n"
            "for (int i = 0; i < n; i++)\n    sum += a[i];\n```"]),
    ("Reply with a single word.", ["Is this review positive or negative? 'I wanted to like it, but the hinge broke after a week.'", "Negative"]),
    (None, ["Write a limerick about a forgetful robot.",
            "A robot who lived by the sea\nkept losing its front-door key.\nIt searched high and low,\nthen said, \"Now I know:\nI *am* the "
            "lock. Silly me!\""]),
    (None, ["How can I see which process uses port 8080 on Linux?",
            "Use `ss -ltnp 'sport = :8080'` (run it with sudo to see processes of other users). `lsof -i :8080` shows the same with the "
            "name and the process id in the first two columns."]),
    (None, ["Hello!", "Hello! What can I do for you today?", "Nothing much, just saying hi.", "That is kind of you. Have a good day!"]),
]

# ---- pictures --------------------------------------------------------------------------------------------------------
COLORS = {"red": (206, 52, 48), "blue": (44, 92, 190), "green": (52, 150, 76), "yellow": (236, 196, 48), "purple": (128, 70, 160),
          "orange": (232, 130, 40), "black": (20, 20, 20), "teal": (30, 140, 150)}


def font(size):
    return ImageFont.load_default(size)


def url(image, kind="PNG"):
    out = io.BytesIO()
    if kind == "PNG":
        image.quantize(32, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=45)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(out.getvalue()).decode()


def bars(title, names, values, size=(448, 336)):
    image = Image.new("RGB", size, "white")
    d = ImageDraw.Draw(image)
    d.text((20, 10), title, fill="black", font=font(22))
    top, bottom, width = 60, size[1] - 50, (size[0] - 60) // len(values)
    for step in range(5):
        y = bottom - (bottom - top) * step // 4
        d.line((40, y, size[0] - 20, y), fill=(215, 215, 215))
        d.text((8, y - 8), str(max(values) * step // 4), fill=(90, 90, 90), font=font(13))
    for i, (name, value) in enumerate(zip(names, values)):
        x = 50 + i * width
        d.rectangle((x, bottom - (bottom - top) * value / max(values), x + width - 16, bottom), fill=list(COLORS.values())[i % 6])
        d.text((x, bottom + 8), name, fill="black", font=font(15))
    return image


def lines(title, series, size=(504, 336)):
    image = Image.new("RGB", size, (250, 250, 246))
    d = ImageDraw.Draw(image)
    d.text((20, 8), title, fill="black", font=font(20))
    high = max(max(v) for v in series.values())
    for k, (name, values) in enumerate(series.items()):
        color = list(COLORS.values())[k]
        at = [(50 + i * (size[0] - 90) / (len(values) - 1), size[1] - 40 - (size[1] - 100) * v / high) for i, v in enumerate(values)]
        d.line(at, fill=color, width=4)
        d.text((at[-1][0] - 50, at[-1][1] - 24), name, fill=color, font=font(16))
    d.line((50, 50, 50, size[1] - 40), fill="black")
    d.line((50, size[1] - 40, size[0] - 30, size[1] - 40), fill="black")
    return image


def page(rows, size=(420, 560), paper="white", text=20):
    image = Image.new("RGB", size, paper)
    d = ImageDraw.Draw(image)
    y = 24
    for row in rows:
        if row == "-":
            d.line((24, y + 6, size[0] - 24, y + 6), fill="black", width=2)
            y += 18
        elif isinstance(row, tuple):
            d.text((24, y), row[0], fill="black", font=font(text))
            d.text((size[0] - 24 - d.textlength(row[1], font=font(text)), y), row[1], fill="black", font=font(text))
            y += text + 14
        else:
            d.text((24, y), row, fill="black", font=font(text))
            y += text + 14
    return image


def grid(cells, size=(336, 336)):
    """cells: [(shape, color, column, row)] of a 3 x 3 grid"""
    image = Image.new("RGB", size, (244, 240, 232))
    d = ImageDraw.Draw(image)
    for shape, color, column, row in cells:
        x, y, r = 56 + 112 * column, 56 + 112 * row, 40
        if shape == "circle":
            d.ellipse((x - r, y - r, x + r, y + r), fill=COLORS[color])
        elif shape == "square":
            d.rectangle((x - r, y - r, x + r, y + r), fill=COLORS[color])
        elif shape == "triangle":
            d.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=COLORS[color])
        else:
            d.polygon([(x + r * math.sin(k * math.pi / 5) * (1 if k % 2 == 0 else 0.42),
                        y - r * math.cos(k * math.pi / 5) * (1 if k % 2 == 0 else 0.42)) for k in range(10)], fill=COLORS[color])
    return image


def landscape(seed, sky, ground, sun, size=(392, 252)):
    """hills under a sky, with grain: as near to a photograph as a few lines come"""
    r = random.Random(seed)
    image = Image.new("RGB", size)
    p = image.load()
    waves = [(r.uniform(0.004, 0.03), r.uniform(0, 6), r.uniform(4, 26)) for _ in range(6)]
    ridges = [[size[1] * (0.5 + 0.14 * k) + sum(a * math.sin(x * f * (1 + k) + q + k) for f, q, a in waves) * (0.9 - 0.2 * k)
               for x in range(size[0])] for k in range(3)]
    for y in range(size[1]):
        for x in range(size[0]):
            depth = sum(y > ridges[k][x] for k in range(3))
            t = y / size[1]
            c = [sky[i] * (1 - t) + 235 * t for i in range(3)] if not depth else [ground[i] * (1.25 - 0.25 * depth) for i in range(3)]
            glow = 120 * math.exp(-((x - sun[0]) ** 2 + (y - sun[1]) ** 2) / 900.0) if not depth else 0
            n = r.gauss(0, 5 if depth else 2)
            p[x, y] = tuple(max(0, min(255, int(v + glow + n))) for v in c)
    return image


def interference(size=(308, 308)):
    image = Image.new("RGB", size)
    p = image.load()
    for y in range(size[1]):
        for x in range(size[0]):
            a, b = math.hypot(x - 80, y - 150), math.hypot(x - 230, y - 150)
            v = int(127 + 60 * math.sin(a / 7) + 60 * math.sin(b / 7))
            p[x, y] = (v, int(v * 0.8), 255 - v)
    return image


def clock(hour, minute, size=(280, 280)):
    image = Image.new("RGB", size, "white")
    d = ImageDraw.Draw(image)
    d.ellipse((10, 10, 270, 270), outline="black", width=5)
    for k in range(1, 13):
        a = math.radians(30 * k)
        d.text((140 + 108 * math.sin(a) - 9, 140 - 108 * math.cos(a) - 12), str(k), fill="black", font=font(20))
    for angle, length, width in ((30 * hour + minute / 2, 62, 9), (6 * minute, 96, 5)):
        a = math.radians(angle)
        d.line((140, 140, 140 + length * math.sin(a), 140 - length * math.cos(a)), fill="black", width=width)
    return image


def pictures():
    sales = bars("Sales by region", ["North", "South", "East", "West"], [40, 72, 55, 90])
    yield [url(sales)], ["Which region sold most, and how much?", "West sold most, about 90 units. South follows with 72."]
    yield [url(bars("Rainfall (mm)", ["Jan", "Feb", "Mar", "Apr", "May", "Jun"], [82, 64, 51, 40, 33, 20]))], [
        "¿Qué muestra este gráfico?", "Es un gráfico de barras con la lluvia mensual de enero a junio, en milímetros. La lluvia baja "
        "cada mes: de 82 mm en enero a 20 mm en junio."]
    yield [url(lines("Visitors per day", {"museum": [30, 34, 31, 52, 60, 58, 71], "park": [80, 76, 70, 66, 50, 44, 40]}))], [
        "Describe the trends of the two lines.", "The museum's visitors rise from about 30 to about 71 a day, while the park's fall "
        "steadily from 80 to 40. They cross between the fourth and the fifth day."]
    receipt = page(["CORNER STORE", "12 May 2024   17:42", "-", ("Bread", "2.40"), ("Milk 1L", "1.15"), ("Apples", "3.60"), ("Coffee", "6.90"),
                    "-", ("TOTAL", "14.05"), ("CASH", "20.00"), ("CHANGE", "5.95")])
    yield [url(receipt)], ["Read the receipt and list the items with prices.", "- Bread: 2.40\n- Milk 1L: 1.15\n- Apples: 3.60\n- Coffee: 6.90\n\n"
                           "The total is 14.05.", "How much change was given?", "5.95, from 20.00 in cash."]
    yield [url(receipt)], ["这张小票的总金额是多少？", "总金额是14.05，顾客付了20.00现金，找零5.95。"]
    yield [url(page(["INVOICE 2024-117", "To: R. Okafor", "Due: 30 June 2024", "-", ("Design, 12 h", "960.00"), ("Hosting", "120.00"), "-",
                     ("Net", "1080.00"), ("VAT 20%", "216.00"), ("Total", "1296.00")], paper=(252, 250, 240)))], [
        "Extract the invoice number, the due date and the total as JSON.",
        "```json\n{\"invoice\": \"2024-117\", \"due\": \"2024-06-30\", \"total\": 1296.00}\n```"]
    yield [url(page(["OPENING HOURS", "-", ("Mon - Thu", "9 - 18"), ("Friday", "9 - 20"), ("Saturday", "10 - 14"), ("Sunday", "closed")],
                    (448, 280)))], ["Kann ich am Samstag um 15 Uhr noch hingehen?", "Nein, am Samstag ist nur von 10 bis 14 Uhr geöffnet."]
    shapes = grid([("circle", "red", 0, 0), ("square", "blue", 2, 0), ("triangle", "green", 1, 1), ("star", "yellow", 0, 2), ("circle", "purple", 2, 2)])
    yield [url(shapes)], ["What is in the middle of the picture?", "A green triangle.", "And what is to its lower left?", "A yellow star."]
    yield [url(shapes)], ["Combien de formes y a-t-il, et de quelles couleurs ?", "Il y a cinq formes : un cercle rouge, un carré bleu, un "
                          "triangle vert, une étoile jaune et un cercle violet."]
    other = grid([("circle", "red", 0, 0), ("square", "blue", 2, 0), ("triangle", "orange", 1, 1), ("star", "yellow", 0, 2)])
    yield [url(shapes), url(other)], ["What differs between the two pictures?", "In the second picture the triangle in the middle is orange "
                                      "instead of green, and the purple circle at the lower right is missing."]
    yield [url(landscape(1, (90, 150, 225), (70, 120, 60), (300, 60)), "JPEG")], [
        "Describe this picture.", "It shows green hills under a clear blue sky. Three ridges lie behind one another, the nearest darkest, and "
        "a bright spot at the upper right suggests the sun."]
    yield [url(landscape(2, (225, 120, 70), (70, 50, 70), (120, 90)), "JPEG")], [
        "What time of day could this be?", "The orange sky and the dark hills suggest sunset or sunrise, with the sun low on the left."]
    yield [url(landscape(3, (150, 160, 170), (150, 140, 120), (200, 40)), "JPEG")], [
        "この写真の雰囲気を説明してください。", "空は灰色で、淡い茶色の丘が重なっています。日差しは弱く、静かで少し寂しい印象です。"]
    yield [url(landscape(4, (40, 50, 110), (30, 40, 60), (330, 50)), "JPEG")], ["صف هذه الصورة.", "تظهر الصورة تلالاً داكنة تحت سماء زرقاء عند المساء، مع ضوء خافت في أعلى اليمين."]
    yield [url(interference(), "JPEG")], ["What physical effect does this pattern resemble?", "It looks like the interference of waves from two "
                                          "sources: rings spread from two points, and where they overlap they strengthen or cancel each other."]
    yield [url(clock(10, 10))], ["What time does the clock show?", "Ten minutes past ten (10:10)."]
    yield [url(clock(4, 45))], ["Который час на этих часах?", "Без пятнадцати пять (4:45)."]
    yield [url(page([("Name", "Score"), "-", ("Amina", "91"), ("Jonas", "78"), ("Mei", "85"), ("Pedro", "66")], (364, 308)))], [
        "What is the average score?", "The average is (91 + 78 + 85 + 66) / 4 = 80."]
    yield [url(page(["def area(r):", "    return 3.14 * r ** 2", "", "print(area(2))"], (448, 224), (32, 34, 40)).point(lambda v: 255 - v if v < 30 else v))], [
        "What does this program print?", "It prints the area of a circle with radius 2: 3.14 * 4 = 12.56."]
    yield [url(bars("Exam points", ["A", "B", "C"], [50, 80, 65], (336, 252)))], [
        "점수가 가장 높은 것은 무엇인가요?", "B가 80점으로 가장 높습니다."]


def row(system, turns, images=()):
    messages = [{"role": "system", "content": system}] if system else []
    for i, text in enumerate(turns):
        content = text
        if i == 0 and images:
            content = [{"type": "image", "image": u} for u in images] + [{"type": "text", "text": text}]
        messages.append({"role": "user" if i % 2 == 0 else "assistant", "content": content})
    return json.dumps({"messages": messages}, ensure_ascii=False)


def main():
    # A picture after every second or third text, so that the first N rows of the set are a mix for every N.
    text = [row(system, turns) for system, turns in TEXT]
    image = [row(None, turns, images) for images, turns in pictures()]
    order = random.Random(0)
    order.shuffle(text)
    order.shuffle(image)
    out, taken = [], 0
    for i, line in enumerate(text):
        out.append(line)
        while taken < (i + 1) * len(image) // len(text):
            out.append(image[taken])
            taken += 1
    sys.stdout.write("\n".join(out) + "\n")


main()
