"""Forty-eight cities and what is true of them: airport, country, flag, language and money, in English and Chinese."""

from __future__ import annotations

import re
from typing import NamedTuple


class City(NamedTuple):
    """Names as (English, Chinese); airport is the IATA code of the main one, flag the ISO code of the country."""

    name: tuple[str, str]
    airport: str
    flag: str
    country: tuple[str, str]
    language: tuple[str, str]
    currency: tuple[str, str]


# name, airport, flag, country, language, currency; no city's name is part of its country's name
_TABLE = """
Tokyo 东京|HND|jp|Japan 日本|Japanese 日语|yen 日元
Paris 巴黎|CDG|fr|France 法国|French 法语|euro 欧元
London 伦敦|LHR|gb|United Kingdom 英国|English 英语|British pound 英镑
New York 纽约|JFK|us|United States 美国|English 英语|US dollar 美元
Beijing 北京|PEK|cn|China 中国|Chinese 汉语|yuan 人民币
Rome 罗马|FCO|it|Italy 意大利|Italian 意大利语|euro 欧元
Berlin 柏林|BER|de|Germany 德国|German 德语|euro 欧元
Madrid 马德里|MAD|es|Spain 西班牙|Spanish 西班牙语|euro 欧元
Lisbon 里斯本|LIS|pt|Portugal 葡萄牙|Portuguese 葡萄牙语|euro 欧元
Vienna 维也纳|VIE|at|Austria 奥地利|German 德语|euro 欧元
Amsterdam 阿姆斯特丹|AMS|nl|Netherlands 荷兰|Dutch 荷兰语|euro 欧元
Athens 雅典|ATH|gr|Greece 希腊|Greek 希腊语|euro 欧元
Dublin 都柏林|DUB|ie|Ireland 爱尔兰|English 英语|euro 欧元
Helsinki 赫尔辛基|HEL|fi|Finland 芬兰|Finnish 芬兰语|euro 欧元
Oslo 奥斯陆|OSL|no|Norway 挪威|Norwegian 挪威语|Norwegian krone 挪威克朗
Stockholm 斯德哥尔摩|ARN|se|Sweden 瑞典|Swedish 瑞典语|Swedish krona 瑞典克朗
Copenhagen 哥本哈根|CPH|dk|Denmark 丹麦|Danish 丹麦语|Danish krone 丹麦克朗
Reykjavik 雷克雅未克|KEF|is|Iceland 冰岛|Icelandic 冰岛语|Icelandic krona 冰岛克朗
Warsaw 华沙|WAW|pl|Poland 波兰|Polish 波兰语|zloty 兹罗提
Prague 布拉格|PRG|cz|Czechia 捷克|Czech 捷克语|Czech koruna 捷克克朗
Budapest 布达佩斯|BUD|hu|Hungary 匈牙利|Hungarian 匈牙利语|forint 福林
Bucharest 布加勒斯特|OTP|ro|Romania 罗马尼亚|Romanian 罗马尼亚语|Romanian leu 列伊
Zurich 苏黎世|ZRH|ch|Switzerland 瑞士|German 德语|Swiss franc 瑞士法郎
Istanbul 伊斯坦布尔|IST|tr|Turkey 土耳其|Turkish 土耳其语|Turkish lira 里拉
Moscow 莫斯科|SVO|ru|Russia 俄罗斯|Russian 俄语|ruble 卢布
Cairo 开罗|CAI|eg|Egypt 埃及|Arabic 阿拉伯语|Egyptian pound 埃及镑
Casablanca 卡萨布兰卡|CMN|ma|Morocco 摩洛哥|Arabic 阿拉伯语|Moroccan dirham 摩洛哥迪拉姆
Dubai 迪拜|DXB|ae|United Arab Emirates 阿联酋|Arabic 阿拉伯语|Emirati dirham 阿联酋迪拉姆
Riyadh 利雅得|RUH|sa|Saudi Arabia 沙特阿拉伯|Arabic 阿拉伯语|Saudi riyal 沙特里亚尔
Tehran 德黑兰|IKA|ir|Iran 伊朗|Persian 波斯语|Iranian rial 伊朗里亚尔
Delhi 德里|DEL|in|India 印度|Hindi 印地语|Indian rupee 印度卢比
Dhaka 达卡|DAC|bd|Bangladesh 孟加拉国|Bengali 孟加拉语|taka 塔卡
Kathmandu 加德满都|KTM|np|Nepal 尼泊尔|Nepali 尼泊尔语|Nepalese rupee 尼泊尔卢比
Bangkok 曼谷|BKK|th|Thailand 泰国|Thai 泰语|baht 泰铢
Hanoi 河内|HAN|vn|Vietnam 越南|Vietnamese 越南语|dong 越南盾
Jakarta 雅加达|CGK|id|Indonesia 印度尼西亚|Indonesian 印尼语|rupiah 印尼盾
Kuala Lumpur 吉隆坡|KUL|my|Malaysia 马来西亚|Malay 马来语|ringgit 林吉特
Manila 马尼拉|MNL|ph|Philippines 菲律宾|Filipino 菲律宾语|Philippine peso 菲律宾比索
Seoul 首尔|ICN|kr|South Korea 韩国|Korean 韩语|won 韩元
Ulaanbaatar 乌兰巴托|UBN|mn|Mongolia 蒙古|Mongolian 蒙古语|tugrik 图格里克
Shanghai 上海|PVG|cn|China 中国|Chinese 汉语|yuan 人民币
Sydney 悉尼|SYD|au|Australia 澳大利亚|English 英语|Australian dollar 澳元
Auckland 奥克兰|AKL|nz|New Zealand 新西兰|English 英语|New Zealand dollar 新西兰元
Toronto 多伦多|YYZ|ca|Canada 加拿大|English 英语|Canadian dollar 加元
Lima 利马|LIM|pe|Peru 秘鲁|Spanish 西班牙语|Peruvian sol 索尔
Havana 哈瓦那|HAV|cu|Cuba 古巴|Spanish 西班牙语|Cuban peso 古巴比索
Buenos Aires 布宜诺斯艾利斯|EZE|ar|Argentina 阿根廷|Spanish 西班牙语|Argentine peso 阿根廷比索
Rio de Janeiro 里约热内卢|GIG|br|Brazil 巴西|Portuguese 葡萄牙语|Brazilian real 雷亚尔
"""


def _city(line: str) -> City:
    name, airport, flag, *facts = line.split("|")
    sign = "".join(chr(0x1F1E6 + ord(letter) - ord("a")) for letter in flag)
    return City(_pair(name), airport, sign, *map(_pair, facts))


def _pair(text: str) -> tuple[str, str]:
    english, chinese = text.rsplit(" ", 1)
    return english, chinese


# by key: the English name in small letters, "new york"
CITIES: dict[str, City] = {city.name[0].lower(): city for city in map(_city, _TABLE.strip().splitlines())}
KINDS = ("route", "country", "currency", "language")


def _names(kind: str) -> dict[str, tuple[str, str]]:
    names = {form: ("city", city.name[0]) for city in CITIES.values() for form in city.name}
    if kind != "route":
        pairs = [getattr(city, kind) for city in CITIES.values()]
        names |= {form: ("fact", pair[0]) for pair in pairs for form in pair}
    return names


def _any_of(names: dict[str, tuple[str, str]]) -> re.Pattern[str]:
    longest = sorted(names, key=len, reverse=True)
    return re.compile("|".join(rf"(?<![A-Za-z]){n}(?![A-Za-z])" if n.isascii() else n for n in longest))


# by kind: what a name in either language means, ("city" or "fact", its English form); and where any name stands, the
# longest first, an English one as a whole word: 罗马 is not in 罗马尼亚, nor Japan in Japanese
NAMES = {kind: _names(kind) for kind in KINDS}
NAMED = {kind: _any_of(names) for kind, names in NAMES.items()}
