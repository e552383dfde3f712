"""Sentences to be filled in, in the registers that labelled sets lack: letters, forms, court decisions, medical and
personnel files, signatures, other languages, and chat with the value alone. ``tagger_fillers.py`` fills the braces.
"""

TEMPLATES = """
{person}
{first}
{first}
{last}
{first} here
it's {first}
this is {first} {last}
hi i am {person}
hello my name is {person} and i need help
im {first}
I'm {first}, I live in {place}
yes it is {person}
sure, {person}
thanks {first}
Thank you {first}!
Hi {first},
Dear {first},
Dear {title} {last},
Dear {person},
Kind regards,\n{person}
Best,\n{first}
Regards,\n{person}\n{organisation}\n{phone}
Sincerely,\n\n{person}\nCustomer Service
--\n{person}\n{address}\n{phone}\n{email}
my name is {person} and my phone number is {phone}
name {person} email {email} phone {phone}
Name: {person}\nAddress: {address}\nPhone: {phone}\nE-mail: {email}
Full name: {person}\nDate of birth: {date}\nPassport number: {passport}
Surname: {last}\nGiven name: {first}
{person} {reference}
{reference}
its {reference}
{phone}
{email}
{email}
my email is {email}
you can reach me at {email} or {phone}
send it to {email} please
mail me on {email}
the email address is {email} thank you
call me on {phone}
my number is {phone}
phone {phone}
ph no {phone}
contact number {phone}
my cell is {phone}, call after 5 pm
Your order {plainreference}
your order {plainreference} has shipped
order {plainreference}
where is order {plainreference}
Order #{plainreference} is on its way.
ticket {plainreference} is still open
Ticket #{plainreference}
my booking {plainreference}
invoice {plainreference} is overdue
Invoice no. {plainreference}
claim {plainreference}
policy {plainreference} was cancelled
case {plainreference}
tracking {plainreference}
reservation {plainreference} for two
customer {plainreference}
{username}
login {username}
{username} did you fix it
{address}
{address}
{person} {address} {phone}
{person}, {address}, {phone}
{phone} {address}
{address} {phone}
{person} {phone} {address}
sure {phone} {person} {address}
{first} and address {address}
address {address} and contact number {phone}
address {place} {zip}
im at {address} phone is {phone}
my address is {address}
i live at {address}
deliver to {address}
ship it to {address} please
The shipping address is {address}.
It was sent to the wrong address: {address}
billing address {address}
{place}
from {place} to {place}
I want to book a flight from {place} to {place} on {date}
my order number is {reference}
order {reference} has not arrived
Order #{reference} was placed on {date}
booking confirmation number {reference}
my booking reference is {reference}
confirmation {reference}
policy number {reference}
the policy id is {reference}
claim number {reference}
claim id {reference} and policy {reference}
ticket {reference} is still open
Case number: {reference}
tracking number {reference}
customer id {reference}
Customer number {reference}, invoice {reference}
my member id is {reference}
employee ID {reference}
patient ID {reference}
Medical record number {reference}
reservation code {reference} under {last}
student number {reference}
serial number {reference}
licence plate {reference}
reference: {reference}
account number {bank_account}
my account is {bank_account}
my account number is {bank_account}
acct {bank_account}
transfer it to account {bank_account}, routing number {bank_account}
Bank account {bank_account} at {organisation}
sort code {bank_account} account {bank_account}
IBAN {bank_account}
the card number is {card}
my card ends in {card4}
card {card}
last four digits {card4}
last 4 of my card {card4}
{card}
cvv {card3}
card no {card4} and ssn {national_id4}
ssn {national_id}
my ssn is {national_id}
{national_id}
last four of my social is {national_id4}
last 4 digits of ssn {national_id4}
social security number {national_id}
national insurance number {national_id}
Her national ID number is {national_id}.
aadhaar {national_id}
pesel {national_id}
passport {passport}
my passport number is {passport}
Passport No. {passport} issued to {person}
driver's license number {driving_licence}
driving licence {driving_licence}
dl no {driving_licence}
tax id {tax_id}
Tax ID number {tax_id}
VAT number {tax_id}
my pan number is {tax_id}
EIN {tax_id}
password {password}
my password is {password}
the password is {password}
pwd: {password}
Password: {password}
Login with username {username} and password {password}
user {username} pass {password}
reset my password to {password}
i set it to {password} but it does not work
temporary password '{password}' was sent to {email}
username {username}
my username is {username}
user id {username}
login {username}
my handle is @{username}
i work for {organisation}
company name is {organisation}
I work at {organisation} in {place}
my company is {organisation} and my account number is {bank_account}
{organisation}
We bought it from {organisation} on {date}.
{person} joined {organisation} in {date}.
{person} from {organisation} called about {reference}.
{person} was born on {date} in {place}.
{title} {last} was born in {year} and lives in {place}.
The applicant, {title} {person}, is a national who was born in {year} and lives in {place}.
The case originated in an application (no. {caseno}) lodged on {date} by {title} {person} ("the applicant").
The applicants, {title} {person} and {title} {person}, were represented by {title} {initials} {last}, a lawyer practising in {place}.
The Government were represented by their Agent, {title} {initials} {last}, of the {organisation}.
{personupper} v. {placeupper}
{lastupper} v. {organisation}
IN THE MATTER OF {personupper}
CASE OF {lastupper} v. {placeupper}
(Application no. {caseno})
Applications nos. {caseno} and {caseno}
Before: {person}, {role}, {person}, {person}, judges, and {person}, {role}.
Composed of {initials} {last}, {role},\n{initials} {last},\n{initials} {last},\n{initials} {last}, judges
Having deliberated in private on {date}, delivers the following judgment, which was adopted on that date:
On {date} the {organisation} dismissed the appeal lodged by {title} {last}.
On {date} the applicant was arrested in {place} on suspicion of fraud and taken to the {organisation}.
By a judgment of {date} the {organisation} convicted {title} {last} and sentenced him to four years' imprisonment.
By a decision of {date} the President of the Chamber gave priority to the application.
The first applicant was born in {year}; the second applicant, {title} {initials} {last}, in {year}.
In {date} the company {organisation} brought proceedings against {title} {person} before the {organisation}.
{initials} {last}, the applicant's brother, gave evidence on {date}.
A witness, {initials} {last}, stated that he had seen the applicant in {place} in {date}.
The {organisation} quashed the judgment (file no. {caseno}) and remitted the case.
Between {date} and {date} he was detained in {place}.
Civil Action No. {caseno}
Docket No. {caseno}, {organisation}
Plaintiff {person} resides at {address}.
Defendant {person} ("{last}") appeals from the order of the {organisation} entered {date}.
{person}, for the appellant. {person}, for the respondent.
Justice {last} delivered the opinion of the Court.
{last} J.: I agree with {last} LJ.
see {last} v. {last}, decided on {date}
The tenant, {title} {person}, of {address}, shall pay the landlord, {organisation}.
This agreement is made on {date} between {person}, residing at {address}, and {organisation}.
On {date}, Dr. {person} examined {title} {last} at {organisation}.
The patient {person} (born {date}) was seen by Dr {last} on {date}.
Discharge summary: {person}, {reference}, admitted {date}.
{person} reported that {first} had left the office.
{first} and {first} met {last} in {place}.
{first}'s sister {first} moved to {place} last year.
I spoke with {first} yesterday and {first} said it was fine.
can you tell {first} that the order {reference} is late
please ask {first} {last} to call me at {phone}
The meeting with {person} is on {date} at {organisation}.
According to {title} {last}, {organisation} will move to {place} in {year}.
HR: {person}'s employee number {reference}, salary paid to {bank_account}
User {person} signed in from {place}
Agent: may i have your name please\nCustomer: {person}
Bot: What is your account number? User: {bank_account}
Bot: Could you confirm your address? User: {address}
Agent: can i get your booking id\nCustomer: sure {reference}
Passenger {personupper} flight to {placeupper} on {date}
Mein Name ist {person}
mein name ist {person} und meine kundennummer ist {reference}
Ich heiße {person} und wohne in {place}.
Sehr geehrte Frau {last},
Sehr geehrter Herr {last}, vielen Dank für Ihre Nachricht.
Hallo {first}, danke für die schnelle Antwort!
Mit freundlichen Grüßen,\n{person}
Liebe Grüße {first}
Meine Adresse ist {address}
Ihre Bestellung {reference} ist unterwegs.
Rechnungsnummer {reference} vom {date}
Meine Telefonnummer ist {phone}
Das Landgericht {place} hat {person} verurteilt.
Je m'appelle {person} et j'habite à {place}.
bonjour je suis {person}
Bonjour {first}, merci pour votre réponse.
Monsieur {last}, votre commande {reference} est arrivée.
Cordialement,\n{person}
mon adresse est {address}
mon numéro de téléphone est {phone}
Me llamo {person} y vivo en {place}.
hola soy {first} {last}
Hola {first}, gracias por su mensaje.
Estimada señora {last}: su pedido {reference} no ha llegado.
Saludos,\n{person}
mi dirección es {address}
mi teléfono es {phone}
Mi chiamo {person} e abito a {place}.
Gentile {last}, grazie per la sua richiesta.
Cordiali saluti,\n{person}
Mijn naam is {person} en ik woon in {place}.
Beste {first}, bedankt voor uw bericht.
Met vriendelijke groet,\n{person}
Meu nome é {person} e moro em {place}.
Olá {first}, obrigado pela resposta.
Nazywam się {person}, mój numer to {reference}.
Jag heter {person} och bor i {place}.
Mit navn er {person}.
zip code {zip}
my zip is {zip}
{zip}
{place} {zip}
it is {zip}
""".strip().split("\n")  # noqa: E501
NEGATIVES = """
i need {n} pizzas and {n} large cokes
can i get {n} of them
Guten Morgen
Guten Tag
Hasta luego
Buenos dias
Bonjour
Bonne journée
Merci beaucoup
Vielen Dank
Danke schön
Grazie mille
Buongiorno
Obrigado
Ciao
Salaam
Namaste
Dzień dobry
Tack så mycket
God morgon
the answer is {number}
The answer is {number}.
Answer: {number}
#### {number}
= {number}
that makes {number}
so it is {n} x {n} = {number}
{number} + {number} = {number}
The total is {number}.
in total {number}
result: {number}
the sum equals {number}
It has {number} words in {n} files.
about {number} of them
a population of {number}
she scored {number} points
{number} rows in {n} seconds
line {number}, column {n}
version {n}.{n}.{n}
[{stamp}] INFO started
{stamp} request took {number} ms
created at {stamp}
pi is about 3.14159
the value rose from {number} to {number}
{number} divided by {n} is {number}
it costs ${n}.99
it was $ {n} i think
there are {n} people
around {n} minutes
I have been waiting for {n} days now!
error code {n}
windows {n} keeps crashing
my bill is {n} dollars
seat for {n} passengers
what is your return policy
i want to know my account balance
what is my order status
my password is not working
i forgot my password
i can't remember my username
i lost my card yesterday
the card number is not accepted
my phone number has changed
i want to change my address
what email do you need
my name is spelled wrong
do you need my social security number
no i don't have it
The Court notes that the complaint is not manifestly ill-founded.
It is therefore admissible. The question of costs was reserved.
The Government contested that argument and maintained their objections.
See paragraphs {n} to {n} above; Article {n} § {n} of the Convention was relied upon.
Section {n} of the Act provides as follows.
The Applicant submitted that the proceedings had been excessively long.
FOR THESE REASONS, THE COURT UNANIMOUSLY
Holds that there has been a violation of Article {n} of the Convention;
THE LAW
PROCEDURE
THE FACTS AND THE CIRCUMSTANCES OF THE CASE
I. ALLEGED VIOLATION OF ARTICLE {n}
The Defendant shall pay the Plaintiff {n} within three months.
Please restart the router and wait {n} seconds.
Version {n}.{n} fixes the crash.
Chapter {n}: Getting Started
The Terms and Conditions apply to all Products and Services.
Thank you for contacting Customer Support. How may I help you today?
Click Settings, then Privacy, then Delete Account.
Wo ist meine Bestellung? Ich warte seit {n} Tagen.
Vielen Dank für Ihre Hilfe.
Ihre Bestellung ist unterwegs und kommt in {n} Tagen an.
Ich habe mein Passwort vergessen und kann mich nicht anmelden.
Bitte starten Sie den Router neu und warten Sie {n} Sekunden.
Guten Tag, wie kann ich Ihnen helfen?
Mit freundlichen Grüßen, Ihr Kundendienst
Où est ma commande, s'il vous plaît ?
Merci beaucoup pour votre aide.
J'ai oublié mon mot de passe.
Bonjour, comment puis-je vous aider ?
Gracias por su ayuda, todo funciona bien.
¿Dónde está mi pedido? Llevo {n} días esperando.
Buenos días, ¿en qué puedo ayudarle?
Grazie mille per il vostro aiuto.
Bedankt voor uw hulp, het werkt weer.
Obrigado pela ajuda, funcionou.
Samsung Galaxy S{n} screen is broken
iPhone {n} Pro Max does not charge
Ubuntu {n}.04 crashes after the update
Windows {n} update failed with error 0x{n}
The Sony WH-{n}XM headphones are great
HP LaserJet {n} prints blank pages
Model X{n} is out of stock
python 3.{n} and node v{n} are installed
Bluetooth Headphones Not Charging
The Quick Start Guide Explains Everything
nightmare products keep failing
unsubscribe
headphones
refunds
lol ok thanks
ok sure go ahead
yeah that would be great thx
brilliant thank u so much
nothing else bye
good morning
hello
yes please
awesome
""".strip().split("\n")
