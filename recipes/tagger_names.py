"""Names of people and of lands for made-up text: common ones of many origins, written down for this purpose.

What labelled sets lack: they hold few names that are not English. Each origin has given names and family names, which
``tagger_fillers.py`` puts together, so that no line is somebody. Towns come from the area codes of ``phonenumbers``.
"""

from __future__ import annotations

from functools import lru_cache

ORIGINS: dict[str, tuple[str, str]] = {
    "polish": (
        "Jan Piotr Krzysztof Paweł Tomasz Marcin Michał Wojciech Grzegorz Łukasz Stanisław Jerzy Anna Maria "
        "Małgorzata Agnieszka Barbara Ewa Krystyna Joanna Magdalena Zofia Halina Justyna Aleksandra Kinga Jacek "
        "Mariusz Rafał",
        "Nowak Kowalski Wiśniewska Wójcik Kamiński Lewandowski Zieliński Szymańska Woźniak Dąbrowski Kozłowska "
        "Mazur Jankowski Krawczyk Piotrowska Grabowski Pawłowski Michalska Król Wieczorek Jabłoński Wróbel "
        "Stępień Malinowska",
    ),
    "turkish": (
        "Mehmet Mustafa Ahmet Hüseyin İbrahim İsmail Osman Yusuf Murat Ömer Emre Kemal Fatma Ayşe Emine Hatice "
        "Zehra Elif Şerife Sultan Merve Özlem Gülsüm Hakan Serkan Burak Deniz Selin Derya Sevgi",
        "Yılmaz Kaya Demir Şahin Çelik Yıldız Yıldırım Öztürk Aydın Özdemir Arslan Doğan Kılıç Aslan Çetin Kara "
        "Koç Kurt Özkan Şimşek Polat Korkmaz Erdoğan Güneş Aktaş Bulut Acar Taş Kaplan Akın",
    ),
    "arabic": (
        "Mohamed Ahmed Ali Omar Hassan Hussein Khaled Ibrahim Youssef Mahmoud Abdullah Karim Samir Nabil Tarek "
        "Walid Fatima Aisha Mariam Khadija Zainab Layla Salma Amina Nadia Samira Huda Rania Yasmin Abdelkader "
        "Mustapha",
        "Hassan Ali Khalil Mansour Haddad Nasser Saleh El-Sayed Al-Masri Al-Hashimi Bouazizi Benali Cherkaoui El "
        "Amrani Abdelaziz Fakhoury Hariri Qasim Rahman Sharif Suleiman Zaidi Darwish Khoury Najjar Aziz Hamdan "
        "Saadi",
    ),
    "indian": (
        "Rajesh Suresh Ramesh Amit Anil Sanjay Vijay Rahul Arjun Vikram Deepak Manoj Ashok Kiran Ravi Priya Pooja "
        "Anita Sunita Kavita Neha Lakshmi Divya Meera Anjali Shalini Rekha Swati Harpreet Gurpreet Venkatesh "
        "Srinivas",
        "Sharma Verma Gupta Singh Kumar Patel Shah Mehta Reddy Rao Nair Menon Iyer Iyengar Chatterjee Banerjee "
        "Mukherjee Das Ghosh Bose Joshi Kulkarni Deshpande Naidu Pillai Krishnan Subramanian Agarwal Chaudhary "
        "Kaur Gill",
    ),
    "chinese": (
        "Wei Fang Min Jing Lei Jun Yan Ying Hui Xiaoming Xiaoyan Jianguo Guangming Zhiqiang Meiling Yuhan Haoran "
        "Zihan Mei Ling Ming Hong Ping Bo Chao Tao Yong Qiang Xin Jiahui Yiting Shufen",
        "Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu Guo He Lin Gao Luo Zheng Liang Xie Tang "
        "Deng Cao Peng Zeng Xiao Cheung Wong Leung Chan Ng Tsai",
    ),
    "nigerian": (
        "Chinedu Emeka Obinna Chukwuma Ifeanyi Uche Kelechi Tunde Segun Femi Kayode Babatunde Olumide Abiodun "
        "Musa Sani Ngozi Chioma Adaeze Nneka Amaka Funmilayo Yetunde Bukola Titilayo Aminat Halima Kwame Kofi "
        "Kwabena Abena Akosua",
        "Okafor Okoro Eze Nwosu Obi Okeke Onyeka Adeyemi Adebayo Ogunleye Balogun Oyelaran Akinola Abiola Bello "
        "Abubakar Danjuma Okonjo Nnamdi Chukwu Ibrahim Mensah Owusu Boateng Asante Osei Kamau Njoroge Otieno "
        "Mutua Tesfaye Bekele",
    ),
    "nordic": (
        "Lars Anders Johan Erik Karl Per Nils Mikael Fredrik Björn Gunnar Åke Göran Sven Olof Anna Eva Karin "
        "Kerstin Birgitta Ingrid Astrid Märta Elsa Åsa Lena Kari Solveig Mikko Jukka Päivi Aino Søren Jens Mette "
        "Guðrún Jón",
        "Andersson Johansson Karlsson Nilsson Eriksson Larsson Olsson Persson Svensson Gustafsson Lindberg "
        "Lindström Sjöberg Öberg Hansen Olsen Nielsen Jensen Pedersen Rasmussen Kristensen Virtanen Korhonen "
        "Mäkinen Nieminen Jónsdóttir Sigurðsson Berg Dahl Haugen Nygård",
    ),
    "spanish": (
        "José Antonio Manuel Francisco Juan Javier Miguel Carlos Alejandro Pablo Sergio Fernando Jesús María "
        "Carmen Josefa Isabel Dolores Pilar Teresa Rosario Lucía Paula Sofía Elena João António Luís Inês Rita "
        "Beatriz",
        "García Fernández González Rodríguez López Martínez Sánchez Pérez Gómez Martín Jiménez Ruiz Hernández "
        "Díaz Moreno Muñoz Álvarez Romero Alonso Gutiérrez Navarro Torres Domínguez Vázquez Silva Santos Ferreira "
        "Pereira Oliveira Costa Rodrigues Almeida",
    ),
    "french": (
        "Jean Pierre Michel André Philippe Alain Jacques Bernard Laurent Thierry François Marie Nathalie Isabelle "
        "Sylvie Catherine Françoise Monique Chantal Hélène Céline Aurélie Camille Léa Chloé Élodie Benoît Étienne",
        "Martin Bernard Dubois Thomas Robert Richard Petit Durand Leroy Moreau Simon Laurent Lefebvre Michel "
        "Garcia Bertrand Roux Vincent Fournier Morel Girard Mercier Dupont Lambert Bonnet Fontaine Rousseau "
        "Chevalier Blanchard",
    ),
    "german": (
        "Hans Peter Wolfgang Klaus Jürgen Dieter Manfred Uwe Stefan Andreas Matthias Günter Heinz Ursula Monika "
        "Petra Sabine Renate Gisela Heike Andrea Claudia Birgit Katrin Annegret Ruud Joost Pieter Willem Maaike "
        "Anneke",
        "Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer Koch Bauer Richter "
        "Klein Wolf Schröder Neumann Schwarz Zimmermann Braun Krüger Hofmann Hartmann de Vries Jansen van Dijk "
        "Bakker Visser Smit",
    ),
    "italian": (
        "Giuseppe Giovanni Antonio Mario Luigi Francesco Angelo Vincenzo Salvatore Marco Paolo Stefano Anna Rosa "
        "Angela Giulia Francesca Paola Laura Chiara Alessandra Silvia Federica Elisabetta Ileana Mihai Andrei Ion "
        "Gheorghe",
        "Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno Gallo Conti De Luca Mancini "
        "Costa Giordano Rizzo Lombardi Moretti Barbieri Fontana Santoro Popescu Ionescu Popa Dumitru Stan "
        "Munteanu",
    ),
    "slavic": (
        "Aleksandr Sergei Vladimir Dmitri Andrei Alexei Mikhail Igor Oleg Yuri Nikolai Viktor Olga Natalia "
        "Tatiana Elena Svetlana Irina Galina Lyudmila Oksana Iryna Volodymyr Mykola Petr Jiří Zdeněk Jana Věra "
        "Ivan Marko Dragan Milica Jelena Nenad László Zoltán Katalin Erzsébet Georgi Dimitar",
        "Ivanov Petrova Smirnov Kuznetsova Popov Sokolov Lebedev Volkov Morozova Fedorov Shevchenko Kovalenko "
        "Bondarenko Tkachenko Melnyk Novák Svoboda Dvořáková Černý Procházka Horvat Kovačević Jovanović Petrović "
        "Nikolić Marković Nagy Szabó Tóth Horváth Kovács Varga Georgiev Dimitrova Todorov Aliyev Mammadov "
        "Magomedov",
    ),
    "asian": (
        "Hiroshi Takashi Kenji Satoshi Yuki Yoko Keiko Akiko Haruto Sakura Minh Anh Thanh Huong Linh Tuan Hoang "
        "Min-jun Seo-yeon Ji-woo Hye-jin Sung-ho Budi Siti Dewi Agus Nur Rizal Somchai Nattapong Jose Maricel",
        "Tanaka Suzuki Watanabe Nakamura Kobayashi Yamamoto Ito Sato Kato Yoshida Nguyen Tran Le Pham Hoang Vu "
        "Dang Bui Kim Lee Park Choi Jung Kang Santoso Wijaya Pratama Abdullah Rahman Reyes Cruz Bautista Dela "
        "Cruz Srisai",
    ),
    "celtic": (
        "Siobhán Niamh Ciarán Eoin Pádraig Oisín Róisín Caoimhe Aisling Declan Brendan Hamish Angus Fiona Morag "
        "Ewan Rhys Gareth Dylan Sian Nigel Graham Trevor Alistair Nicola Gemma Tyrone Latoya Darnell Keisha "
        "Shanice",
        "O'Connor O'Sullivan Murphy Kelly Byrne Ryan O'Neill Doyle McCarthy Gallagher Doherty McLaughlin "
        "MacDonald Campbell Stewart Fraser Sinclair Davies Evans Griffiths Llewellyn Hughes Whitaker Fairclough "
        "Bradshaw Hargreaves Ashdown Pemberton-Jones Washington Jefferson Freeman",
    ),
}  # fmt: skip
_COUNTRIES = (
    "Afghanistan,Albania,Algeria,Andorra,Angola,Argentina,Armenia,Australia,Austria,Azerbaijan,Bahrain,Bangladesh,"
    "Belarus,Belgium,Bolivia,Bosnia and Herzegovina,Botswana,Brazil,Bulgaria,Cambodia,Cameroon,Canada,Chad,Chile,"
    "China,Colombia,Congo,Costa Rica,Croatia,Cuba,Cyprus,the Czech Republic,Denmark,Ecuador,Egypt,Eritrea,Estonia,"
    "Ethiopia,Finland,France,Gabon,Gambia,Georgia,Germany,Ghana,Greece,Guatemala,Guinea,Haiti,Honduras,Hungary,"
    "Iceland,India,Indonesia,Iran,Iraq,Ireland,Israel,Italy,Jamaica,Japan,Jordan,Kazakhstan,Kenya,Kosovo,Kuwait,"
    "Kyrgyzstan,Latvia,Lebanon,Liberia,Libya,Liechtenstein,Lithuania,Luxembourg,Malawi,Malaysia,Mali,Malta,Mexico,"
    "Moldova,Monaco,Mongolia,Montenegro,Morocco,Mozambique,Namibia,Nepal,the Netherlands,New Zealand,Nicaragua,"
    "Nigeria,North Macedonia,Norway,Oman,Pakistan,Panama,Paraguay,Peru,the Philippines,Poland,Portugal,Qatar,"
    "Romania,Russia,Rwanda,San Marino,Saudi Arabia,Senegal,Serbia,Sierra Leone,Singapore,Slovakia,Slovenia,"
    "Somalia,South Africa,South Korea,Spain,Sri Lanka,Sudan,Sweden,Switzerland,Syria,Taiwan,Tajikistan,Tanzania,"
    "Thailand,Tunisia,Turkey,Turkmenistan,Uganda,Ukraine,the United Kingdom,the United States,Uruguay,Uzbekistan,"
    "Venezuela,Vietnam,Yemen,Zambia,Zimbabwe,Alabama,Alaska,Arizona,Arkansas,California,Colorado,Connecticut,"
    "Delaware,Florida,Hawaii,Idaho,Illinois,Indiana,Iowa,Kansas,Kentucky,Louisiana,Maine,Maryland,Massachusetts,"
    "Michigan,Minnesota,Mississippi,Missouri,Montana,Nebraska,Nevada,New Hampshire,New Jersey,New Mexico,New York,"
    "North Carolina,North Dakota,Ohio,Oklahoma,Oregon,Pennsylvania,Rhode Island,South Carolina,South Dakota,"
    "Tennessee,Texas,Utah,Vermont,Virginia,Washington,Wisconsin,Wyoming,England,Scotland,Wales,Northern Ireland,"
    "Europe,Africa,Asia,Ontario,Quebec,Queensland,Bavaria,Catalonia"
)
COUNTRIES = tuple(_COUNTRIES.split(","))


def international(part: int) -> list[str]:
    """Given names (0) or family names (1) of all origins."""
    return sorted({name for names in ORIGINS.values() for name in names[part].split()})


@lru_cache(maxsize=1)
def towns() -> list[str]:
    """Towns in English by the area codes that belong to one: some ten thousand, of all continents (phonenumbers)."""
    from phonenumbers.geodata import GEOCODE_DATA

    found = set()
    for names in GEOCODE_DATA.values():
        name = names.get("en", "").split(",")[0].split("/")[0].strip()
        if 3 < len(name) < 24 and name.replace(" ", "").replace("-", "").isalpha() and name.istitle():
            found.add(name)
    return sorted(found)
