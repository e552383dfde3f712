"""More sentences to be filled in: court decisions, speech as it is written down, letters and minutes, and, with nothing
private in them, official prose, foreign terms, sums and codes. ``tagger_fillers.py`` fills the braces.
"""

COURT = """
The case originated in an application (no. {caseno}) against {country} lodged with the Court by a national of that State, {title} {person} ("the applicant"), on {date}.
The applicant, {title} {person}, was represented by {title} {initials} {last}, a lawyer practising in {place}.
The applicants were represented by {title} {person} and {title} {initials} {last}, lawyers practising in {place}. The Government were represented by their Agent, {title} {person}.
{person} v. {country}
{last} v. {country}
{last} and Others v. {country}
{lastupper} AND OTHERS v. {countryupper}
CASE OF {personupper} v. {countryupper}
CASE OF {dotted} v. {countryupper}
{dotted} v. {country}
In {dotted} v. {country} the Court found a violation of Article {n}.
In the case of {last} v. {country}, the Court, sitting as a Chamber composed of: {person}, President, {person}, {person}, {person}, judges, and {person}, Section Registrar,
composed of:\n{person}, President,\n{person},\n{person},\n{person}, judges,\nand {person}, Deputy Section Registrar,
{person}\t{person}\nRegistrar\tPresident
see {last} v. {country}, no. {caseno}, § {n}, ECHR {year}-V
(see {last} v. {country} [GC], no. {caseno}, §§ {n}-{n}, and {last} and Others v. {country}, nos. {caseno} and {caseno}, § {n})
Compare {last} v. {country} (dec.), no. {caseno}; {last} v. {country}, judgment of {date}, Series A no. {n}
The first applicant, {dotted}, and the second applicant, {dotted}, complained under Article {n}.
The applicant, {dotted}, is the mother of {dotted}, born in {year}.
The President decided that the applicants' names, {dotted} and {dotted}, should not be disclosed.
A certain {dotted} told the police that {dotted} had taken the money.
According to the witness {dotted}, {title} {last} had left before midnight.
{n}.  The applicant, {title} {person}, was born in {year} and lives in {place}.
{n}.  On {date} the investigator, {title} {initials} {last}, questioned {person} as a witness. {last} denied the charges.
{n}.  {title} {last} lodged an appeal on {date}. The appeal court upheld the judgment.
The applicant's wife, {person}, and their children, {first} and {first}, live in {place}.
{first} was born on {date} and {first} on {date}.
{last}'s brother, {first}, disappeared after his arrest.
The applicant's son {first} was taken away by soldiers. {first} has not been seen since.
The public prosecutor, {title} {person}, took statements from {person} and {person}.
Police officers {last} and {last} searched the flat at {address}.
He was living with his parents at {address} at the time.
She resides at {address}, and is represented by {person}, solicitor.
The child was placed with foster parents, {title} and {title} {last}.
The mother, {person}, applied for custody. {first} {last} was heard in person.
{person}, born on {date} in {place}, is an accountant by profession.
Judge {last} dissented. Judges {last} and {last} joined his opinion.
Separate opinion of Judge {last}, joined by Judge {last}
JUDGE {lastupper}: This is an appeal from the order of {title} {last} dated {date}.
Mr Justice {last}: The claimant, {person}, was injured on {date}.
{last} LJ, giving the judgment of the court, said that the notice was invalid.
{title} {person} QC and {title} {person} (instructed by {organisation}) appeared for the appellant.
BETWEEN: {personupper}, Appellant, and {organisation}, Respondent
Claim No. {caseno}. Before His Honour Judge {last}.
{person} was convicted of robbery by a jury. {last} appeals. We affirm.
Plaintiff {person} filed suit against {organisation} and {title} {person}. {last} moved for summary judgment.
Petitioner {person}, through counsel, seeks review. No. {caseno}.
Detective {last} testified that {last} had confessed. {last} was sentenced to ten years.
The tribunal heard {title} {last} for the employer and {title} {last} in person.
Heard {title} {initials} {last}, learned counsel for the petitioner.
The complainant {person}, residing at {address}, purchased the vehicle from {organisation}.
By a letter of {date} {title} {last} informed {title} {last} that the file (no. {caseno}) was closed.
The {organisation} (case no. {caseno}) refused leave to appeal to {title} {last}.
The accused {person} alias {first} was remanded in custody on {date}.
The victim, {person}, aged {n}, identified {last} as the driver.
The expert, Professor {person}, shared the opinion of Dr {last}.
The interpreter, {person}, was sworn.
{title} {last} submitted that she had never received the letter sent to her on {date}.
It was common ground that {title} {last} had owned the land since {year}.
""".strip().split("\n")  # noqa: E501
SPEECH = """
yeah hi my name is {person} and um i'm calling about my bill
hello this is {spokentitle} {last} calling from {place}
hi uh this is {first} can i speak to {first} please
could you put {first} on the phone please
is {first} there
can i talk to {spokentitle} {last}
i spoke with a lady named {first} and then a man called {last}
so {first} told me i should call you guys back
um {first} and {first} are coming over on saturday
my landlord {spokentitle} {last} never answers
my husband {first} made the reservation under {last}
my wife {first} paid for it
my brother {first} has the same plan
my friend {first} said so
my daughter {first} and my son {first} go to that school
it's under {last}
it's spelled {spelled}
that's {last} {spelled}
my last name is {last} that's {spelled}
thank you {first} you've been great
thank you so much {spokentitle} {last}
well {first} i think we should go
and {spokentitle} {last} asked {first} to sign the form
she said {person} was there too
her maiden name was {last}
my phone number is {spokenphone}
it's {spokenphone}
you can call me at {spokenphone} after five
the number is {spokenphone} okay
my address is {spokenaddress}
i live at {spokenaddress}
we moved to {spokenaddress} last year
he lives at {spokenaddress}
it's {spokenaddress}
the confirmation code is {spokencode}
my booking reference is {spokencode}
the policy number is {spokencode}
order number {spokencode}
my account number is {spokenaccount}
the card number is {spokencard}
the last four digits of my social are {spokensocial}
my social security number is {spokensocial}
my email is {email}
my date of birth is {spokendate}
i was born on {spokendate}
so the witness {person} saw {spokentitle} {last} leave the building
the defendant {person} pleaded not guilty
""".strip().split("\n")
LETTERS = """
From: {person} <{email}>\nTo: {person}\nSubject: Invoice
Cc: {person}, {person}
On {date}, {person} wrote:
Attendees: {person}, {person}, {person} and {person}
Apologies: {person}
Action: {first} to send the minutes, {first} to call {organisation}.
Present: {person} (chair), {person}, {person}
Signed: {person}
Signed by {person} on {date}
Witness: {person}
Landlord: {person}; Tenant: {person}
Seller: {person}, ID {national_id}; Buyer: {person}, passport {passport}
Patient: {lastupper}, {first}\nReferred by: Dr. {person}
Manager: {last}
Contact person: {person}, tel. {phone}
Contact: {first}, {phone}
Recipient: {person}\nStreet: {address}
Ship to:\n{person}\n{address}
Emergency contact: {person} ({phone})
Best wishes from {first}, {first} and {first}
References: {person}, {phone}
Interpreter: {person}
Hello {first}, this is {first} from the service desk.
Hi {first}, {first} asked me to forward this to you.
Hej {first}! Tack för ditt mejl. Med vänlig hälsning, {person}
Vi har talat med {person} i {place}.
Bonjour Madame {last}, votre colis sera livré au {address}.
Sehr geehrte Frau Dr. {last}, Ihr Ansprechpartner ist Herr {last}.
my bro {first} paid for it
my friend {first} has one too
yo {first} u there
its {first} from yesterday
ask {first} pls
did {first} call u
{first} said no
u can ask {first} or {first}
hey {first} whats up
{first}: are you sure?
""".strip().split("\n")
NOTHING = """
The Building Permit must be obtained before the Start of Work.
The work is done under the {agency} Act and the contract terms {law}.
The {country} Tax Agency ({agency}) decides on the deduction.
Contact {agency} or the Planning Office of the Municipality.
{agency} publishes rules on {agency} and energy use.
The rules of {agency} apply, as do the General Conditions {law}.
Source: {agency}; {law}; {law}
{law} Chapter {n} Section {n}; {agency}
A {agency} (building permit) is required; the {agency} must be notified.
What is {agency}?
What is the difference between {law} and {law}?
{agency} is the authority in {country} for consumer matters.
The {agency} requires {n} to {n} weeks; from 2026 the limit is {n}.
See § {n} of the {agency} and Chapter {n} of the Act.
According to {law} the warranty is {n} years; the standard {law} gives details.
The capital of {country} is {place}.
{place}
{country}
{country} is a country in the north of the continent.
{country} has a population of {n} million. In {year}, {country} changed its law.
{country}'s economy grew by {n}.{n} percent.
The {country} government and the University of {country} agreed.
The governor of {country} signed the law in {year}.
The team from {place} beat {place} by {n} to {n}.
{n} + {n} = {n}
{n} + {n} + {n} + {n} = {n} in total
{n} - {n} = {n}, so there are {n} left.
She had {n} * {n} = {n} apples and gave {n} / {n} = {n} away.
Then {n}-{n}={n} and {n} x {n} = {n}.
In total that is ${n} + ${n} = ${n}.
x = {n}, y = {n}, so x + y = {n}
flight dl{n} from {place}
H2SO4 and CO2 react; NaCl, NH3 and C6H12O6 do not.
my {model} does not charge
the {model} is better than the {model}
I bought the {model} camera last week and love it
a {model} lens with a {n}mm filter
upgrade the {model} to kernel 2.6.{n}
IRQ {n} is used by the {model} at 0x{n}
resolution is 1024x768 at {n}hz
bug {n} is fixed in {tool} {n}.{n}
use {tool} instead of {tool}
apt-get install {tool} then restart {tool}
is {tool} in the repository
does {tool} work with {tool}
{tool} crashed again
sudo {tool} -f config.{tool}
try {tool} or {tool}
{tool} is written in Python, {tool} in Java.
Developed in Java, Spring Boot and PostgreSQL; deployed with Docker and Kubernetes on Linux.
Windows, Ubuntu, Debian, Gnome and Firefox are supported.
The Government submitted that the applicant had failed to exhaust domestic remedies.
The Court reiterates that the interference was prescribed by law and pursued a legitimate aim.
The applicant complained of a breach of Article {n} § {n} of the Convention.
FOR THESE REASONS, THE COURT, UNANIMOUSLY, Declares the application admissible;
Done in English, and notified in writing, pursuant to Rule {n} §§ {n} and {n} of the Rules of Court.
Section {n} of the Code of Criminal Procedure, as in force at the material time, read as follows:
The Supreme Court dismissed the cassation appeal. The Constitutional Court declined jurisdiction.
Having regard to the above, the Chamber considers that there has been no violation. See Compl. ¶ {n}.
The Registrar, the President and the Judge Rapporteur signed the minutes.
The Appellant's counsel and the Respondent made oral submissions. Id. at {n}.
The U.S. and the U.K. signed; the E.U. and the U.N. did not. Acme S.A. and Beta B.V. were fined.
At 5 p.m. in Washington, D.C., i.e. late, e.g. after work, the Ph.D. student left.
Thursday Meeting: Agenda, Minutes, Next Steps
Press Release: New Model Available in Spring
Verb
Adverb
Elephant
Broccoli
tires
mayonnaise
brb
omw
idk
cya
lemme check
haha nice
hmm ok
cheers mate
ur welcome
u guys rock
gonna try that
affirmative
negatory
watermelon
invalid coupon
uh-huh uh-huh right
um so what happened was that it started leaking
so the doctor said i should wait
the judge asked the witness about the car
i guess we paid three hundred and fifty dollars
he's in construction and she's a teacher
it was thirty or forty degrees
nineteen ninety nine was a good year
""".strip().split("\n")
