"""Every notation of a key and a secret value that loggers use, and what only looks like one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.redaction import REDACTED, LineRedactor, redact_text
from mcp_server.redaction.patterns import PATTERNS, SecretPattern

_ESC = "\x1b"

# In each of these the value is hunter2, which may stay neither as a whole nor in part.
_MASKED = (
    '{"password":"hunter2"}',
    '{"password" : "hunter2", "user": "bob"}',
    r"{\"password\":\"hunter2\"}",
    r"{\"password\": \"hunter2\", \"user\": \"bob\"}",
    r"{\\\"password\\\":\\\"hunter2\\\"}",
    r"{\\\\\\\"password\\\\\\\":\\\\\\\"hunter2\\\\\\\",\\\\\\\"a\\\\\\\":1}",
    r"login password=\"hunter2\" ok",
    r'{"msg":"login password=\"hunter2\" ok"}',
    r'{"msg":"{\"password\":\"hun\\\"ter2\"}","n":1}',
    r'{"password":"hun\"ter2","n":1}',
    r'{"password":"hunter2\\","n":1}',
    r"{\"password\":\"hunter2\\\\\",\"n\":1}",
    '{"password"=>"hunter2"}',
    '{:password=>"hunter2", :user=>"bob"}',
    r'{"msg":"{\"password\"=\u003e\"hunter2\"}"}',
    '{password: "hunter2", user: "bob"}',
    "{'password': 'hunter2'}",
    "{'db': {'password': 'hunter2', 'port': 5432}}",
    '{"tokens": 1, "token": ["hunter2", "hunter2"], "n": 1}',
    '{"password": {"current": "hunter2", "new": "hunter2"}, "n": 1}',
    '{"password":{"String":"hunter2","Valid":true}}',
    '{""password"":""hunter2"",""user"":""bob""}',
    r"{\u0022password\u0022:\u0022hunter2\u0022}",
    "{&quot;password&quot;:&quot;hunter2&quot;}",
    "%7B%22password%22%3A%22hunter2%22%7D",
    "%257B%2522password%2522%253A%2522hunter2%2522%257D",
    'level=info msg="login" password=hunter2 user=bob',
    'level=info password="hun ter2" user=bob',
    'msg="login password=hunter2" user=bob',
    "password='hunter2'",
    "password = hunter2",
    "password      = hunter2",
    "password := hunter2",
    "password == hunter2",
    "password..........: hunter2",
    'password=~"hunter2"',
    "password: hunter2",
    "password: 'hunter2'",
    'password: "hunter2" # a comment',
    "- name: DB_PASSWORD; value: hunter2",
    '{"name":"DB_PASSWORD","value":"hunter2"}',
    r"{\"name\":\"DB_PASSWORD\",\"value\":\"hunter2\"}",
    "{Name:DB_PASSWORD Value:hunter2 ValueFrom:nil}",
    "EnvVar(name='DB_PASSWORD', value='hunter2')",
    "<password>hunter2</password>",
    '<db:Password type="text">hunter2</db:Password>',
    '<wsse:Password Type="http://x/y#PasswordText">hunter2</wsse:Password>',
    "<password><![CDATA[hunter2]]></password>",
    "&lt;password&gt;hunter2&lt;/password&gt;",
    r"\u003cpassword\u003ehunter2\u003c/password\u003e",
    '<user name="bob" password="hunter2"/>',
    '<add key="DbPassword" value="hunter2"/>',
    '<property name="password">hunter2</property>',
    '<property name="db.password" value="hunter2"/>',
    "<key>password</key><string>hunter2</string>",
    "Cookie: theme=dark; sid=hunter2",
    '{"auths":{"registry.example.com":{"auth":"aHVudGVyMhunter2"}}}',
    r"{\"auth\":\"aHVudGVyMhunter2==\"}",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nhunter2\n-----END PGP PRIVATE KEY BLOCK-----",
    "token ya29.hunter2abcdefghijklmnop of Google",
    "SG.hunter2abcdefghij.hunter2abcdefghij",
    "GET /login?user=bob&password=hunter2&x=1",
    "GET /login?access_token=hunter2 HTTP/1.1",
    "user=bob&password=hunter2",
    "user[password]=hunter2&x=1",
    "user%5Bpassword%5D=hunter2&x=1",
    "password%3Dhunter2%26x",
    r'{"url":"https://host/?a=1\u0026token=hunter2"}',
    "https://host/blob?sv=2024&sig=hunter2%2Fabc&x=1",
    "https://host/x?X-Amz-Signature=hunter2abcdef0123456789&x=1",
    "https://host/cb?code=hunter2abcdef0123456789&state=x",
    "https://host/api?key=hunter2abcdef0123456789",
    "export DB_PASSWORD=hunter2",
    'declare -x DB_PASSWORD="hunter2"',
    '$env:DB_PASSWORD = "hunter2"',
    "set -x DB_PASSWORD hunter2",
    "setenv DB_PASSWORD hunter2",
    "ENV DB_PASSWORD hunter2",
    "MYSQL_PWD=hunter2",
    "DB_PASS=hunter2",
    "smtp_pass: hunter2",
    '{"pass":"hunter2"}',
    '{"dbPass":"hunter2"}',
    "pass=hunter2",
    "DB_PASSWORD_1=hunter2",
    "new_password_confirmation=hunter2",
    '{"SecretString":"hunter2"}',
    "password_hash=hunter2",
    "secret_id=hunter2",
    "{Password:hunter2 User:bob}",
    "&{User:bob Password:hunter2}",
    '{User:"bob", Password:"hunter2"}',
    'config.DB{Password:"hunter2", Port:5432}',
    "map[password:hunter2 user:bob]",
    'map[string]string{"password":"hunter2"}',
    "map[token:[hunter2] user:[bob]]",
    "{Password:{String:hunter2 Valid:true}}",
    'Credentials { user: "bob", password: "hunter2" }',
    'Login { password: Some("hunter2"), user: None }',
    'Login { password: Secret("hunter2") }',
    "User(name='bob', password='hunter2')",
    "connect(host='db1', password='hunter2', port=5432)",
    "Settings(password=SecretStr('hunter2'))",
    "{b'password': b'hunter2'}",
    "{u'password': u'hunter2'}",
    '{"password": r"hunter2"}',
    r'''"{'password': \'hunter2\'}"''',
    "(b'x-api-key', b'hunter2')",
    '[["X-Api-Key","hunter2"],["Accept","*/*"]]',
    "'x-api-key', 'hunter2'",
    '("password", "hunter2")',
    "Authorization: Bearer hunter2",
    "Authorization:[Bearer hunter2]",
    "map[Accept:[*/*] Authorization:[Bearer hunter2]]",
    '{"Authorization":["Bearer hunter2"],"Accept":["*/*"]}',
    r"{\"Authorization\":\"hunter2\"}",
    r"{\"authorization\":\"Token hunter2\",\"n\":1}",
    'authorization="Token hunter2" user=bob',
    "> Authorization: Basic aHVudGVyMhunter2",
    "> X-Api-Key: hunter2",
    "< set-cookie: session=hunter2; Path=/; HttpOnly",
    "Cookie: theme=dark; session=hunter2",
    '{"Cookie":"theme=dark; session=hunter2"}',
    '{"cookie":["theme=dark; session=hunter2"]}',
    "Set-Cookie:[session=hunter2; Path=/]",
    "cookies={'session': 'hunter2'}",
    'Authorization: Digest username="bob", realm="x", response="hunter2"',
    "Authorization: AWS4-HMAC-SHA256 Credential=x/y, SignedHeaders=host, Signature=hunter2",
    "Proxy-Authorization: hunter2",
    "[HTTP/2] [1] [authorization: hunter2]",
    "X-Vault-Token: hunter2",
    "PRIVATE-TOKEN: hunter2",
    "Ocp-Apim-Subscription-Key: hunter2",
    "API Key: hunter2",
    "Secret Access Key = hunter2",
    "api.key=hunter2",
    "curl -H 'X-Api-Key: hunter2' https://host/",
    "curl -u bob:hunter2 https://host/",
    "curl -s --user 'bob:hunter2' https://host/",
    "curl --user=bob:hunter2 https://host/",
    '["curl","-u","bob:hunter2","https://host/"]',
    "mysql -u root -phunter2 shop",
    "mysqldump --password=hunter2 shop",
    "sshpass -p hunter2 ssh host",
    "docker login -u bob -p hunter2 registry.example.com",
    "redis-cli -h db1 -a hunter2 ping",
    "ldapsearch -D cn=admin -w hunter2 -b x",
    "mysql --password hunter2 shop",
    "--api-key 'hunter2' x",
    '["--password", "hunter2", "-v"]',
    r"[\"--password\",\"hunter2\",\"-v\"]",
    "java -Ddb.password=hunter2 -jar x",
    "Server=db1;User Id=sa;Password=hunter2;Encrypt=true",
    "Server=db1;Uid=sa;Pwd=hunter2;",
    "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=hunter2==;EndpointSuffix=y",
    "host=db1 user=bob password=hunter2 dbname=x",
    "postgresql://bob:hunter2@db1/shop",
    r'{"dsn":"postgresql:\/\/bob:hunter2@db1\/shop"}',
    "next=https%3A%2F%2Fbob%3Ahunter2%40host%2F",
    "app:hunter2@tcp(db1:3306)/shop",
    "jdbc:oracle:thin:scott/hunter2@db1:1521:x",
    "jdbc:mysql://db1/shop?user=bob&password=hunter2",
    'password = """hunter2"""',
    "password = 'hunter2' # TOML",
    "spring.datasource.password=hunter2",
    "[password] => hunter2",
    '["password"]=> string(7) "hunter2"',
    "'password' => 'hunter2',",
    's:8:"password";s:7:"hunter2";',
    '["password"] = "hunter2",',
    '#{<<"password">> => <<"hunter2">>}',
    '{:password "hunter2"}',
    '((password . "hunter2"))',
    'let token: &str = "hunter2";',
    "const password: string = 'hunter2';",
    'var password string = "hunter2"',
    'password: String = "hunter2"',
    '{ "password": `hunter2` }',
    'password: "hunter2" port: 5432',
    'api_key { value: "hunter2" }',
    "User{name='bob', password='hunter2'}",
    "User[name=bob, password=hunter2]",
    "userPassword:: aHVudGVyMhunter2",
    "Key (password)=(hunter2) already exists",
    '~ password = "hunter2" -> "hunter2"',
    "password: hunter2 -> hunter2",
    "on field 'password': rejected value [hunter2]; codes",
    "ALTER ROLE app WITH PASSWORD 'hunter2' VALID UNTIL 'x'",
    "CREATE USER app IDENTIFIED BY 'hunter2';",
    "machine host login bob password hunter2",
    "requirepass hunter2",
    "proxy_set_header X-Api-Key hunter2;",
    "Bearer%20hunter2",
    '{"password":"hunter2',
    r"{\"password\":\"hunter2",
    r"DB_PASSWORD=hunter2 \u001b[0m",
    r"\u001b[36mpassword\u001b[0m=hunter2",
    "#033[36mpassword#033[0m=hunter2",
    "^[[36mpassword^[[0m=hunter2",
    "\x1b[36mpassword\x1b[0m=hunter2",
    "\x1b[36mpassword=\x1b[0mhunter2 ok",
    '\x1b[36mpassword\x1b[0m=\x1b[32m"hun ter2"\x1b[0m ok',
    '\x1b[34;1m"password"\x1b[0m\x1b[1;39m:\x1b[0m \x1b[0;32m"hunter2"\x1b[0m',
    "\x1b[01;31m\x1b[Kpass\x1b[m\x1b[Kword=hunter2",
    "password=hun\x1b[01;31mter\x1b[m2",
    "\x1b[35mAuthorization\x1b[0m: \x1b[32mBearer\x1b[0m hunter2",
    "\x9b36mpassword\x9b0m=hunter2",
    "password: |\n  hunter2\n  hunter2\nuser: bob",
    "password: >-\n    hunter2\nuser: bob",
    r'x: "password: |\n  hunter2\nuser: bob"',
    '{\n  "password":\n    "hunter2"\n}',
    '"password": [\n  "hunter2",\n  "hunter2"\n]',
    "- name: DB_PASSWORD\n  value: hunter2",
    '{\n  "name": "DB_PASSWORD",\n  "value": "hunter2"\n}',
    '["password"]=>\n  string(7) "hunter2"',
    "DB_PASSWORD=hunter2\x00USER=bob",
    "mysql\x00--password\x00hunter2\x00-h\x00db1",
    'Content-Disposition: form-data; name="password"\r\n\r\nhunter2\r\n--x',
    r"form-data; name=\"password\"\r\n\r\nhunter2\r\n--x",
    "password\t=\thunter2",
    "password:\thunter2",
    '<property name="password">\n  hunter2\n</property>',
    "<input type='password' name='password' value='hunter2'>",
)

# Each is like one of those above, and holds no secret.
_HARMLESS = (
    "token_count=5",
    "tokens: 512",
    "tokens=512",
    "max_tokens=100",
    "passwords: 3",
    '"passwords": 3',
    "secretName: x",
    '{"secretName":"shop-tls"}',
    r"{\"secretName\":\"shop-tls\"}",
    "password_policy=strict",
    '{"password_policy":"strict"}',
    r"{\"password_policy\":\"strict\"}",
    "password_file=/run/secrets/x",
    "passwordMinLength: 12",
    "password_expires_in=30d",
    "token_type=bearer",
    '{"tokenType":"Bearer","n":1}',
    "token_ttl=5m",
    "token_reviews_total=12",
    "secret_version=3",
    "secret_count: 4",
    '{"secret":{"secretName":"shop-tls","defaultMode":420}}',
    r"{\"secret\":{\"secretName\":\"shop-tls\"}}",
    '{"secret": {"name": "shop-tls"}}',
    '"secretKeyRef":{"name":"db","key":"password"}',
    '{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}}',
    "secretRef: {name: db}",
    "passwordless=true",
    "bypass=true",
    "bypass: x",
    "compass: north",
    "pass=12 fail=3",
    "pass: 12",
    "pass: true",
    "pass=true",
    "first pass: done",
    "PWD=/root/app",
    "OLDPWD=/tmp",
    "pwd=~/x",
    '{"password":null}',
    '{"password": null, "n": 1}',
    r"{\"password\":null}",
    '{"password":""}',
    r"{\"password\":\"\"}",
    '{"token":[]}',
    '{"token":{}}',
    "password=None, port=1",
    "Password:<nil>",
    "password=****",
    '{"has_password":true}',
    "use_token=false",
    "secret: false",
    "public_key=abcdef",
    "primary key: id",
    '"key": "value"',
    "key=value",
    "partition_key=7",
    "sort_key: name",
    "keyboard=us",
    "keys: 5",
    "monkey=banana",
    "author=bob",
    '{"auth":"none"}',
    '{"auth": "kubernetes"}',
    "-----BEGIN PGP PUBLIC KEY BLOCK-----",
    "sg.example.com",
    "hf_hub_download",
    "pypi-mirror",
    "authorized: yes",
    "authorization_mode=RBAC",
    '"authorizationMode": "Node"',
    "authorization failed for bob",
    "cookie_count=3",
    "cookies: 3",
    "cookie: enabled",
    '{"cookie":"","n":1}',
    "cookie consent: shown",
    "<tokens>5</tokens>",
    "<secretName>x</secretName>",
    "<password/>",
    "<password></password>",
    "<passwordPolicy>strict</passwordPolicy>",
    "List<Token> items = list();",
    "mysql -u root -p<password> -h db1",
    "kubectl create --token=",
    "use <token> in the header",
    "GET /tokens?page=2&sort=key",
    "GET /login?user=bob&x=1",
    "GET /x?code=404&key=name&auth=",
    "GET /x?code=200",
    "https://host/blob?sv=2024&signed=true",
    "export DB_HOST=db1",
    "ENV TOKEN_TTL 5",
    "set -x DB_HOST db1",
    "map[user:bob port:5432]",
    "{User:bob Port:5432}",
    "User(name='bob', token_count=5)",
    '["password", "username"]',
    'required: ["user", "password", "token"]',
    '("host", "db1")',
    "'password', 'username'",
    "> Accept: application/json",
    "X-Request-Id: 1234",
    "X-Token-Count: 5",
    "curl -s https://host/",
    "curl -o x:y https://host",
    "docker run -u 1000:1000 x",
    "docker run --user 1000:1000 -p 80:80 x",
    "mysql -u root -p shop",
    "ssh -p 22 host",
    "mkdir -p /x/y",
    "redis-cli -h db1 ping",
    "docker login registry.example.com",
    "Server=db1;User Id=sa;Encrypt=true",
    "app@tcp(db1:3306)/shop",
    "https://host/?next=https%3A%2F%2Fhost%3A8080%2Fx",
    "https%3A%2F%2Fhost%3A8080%2Fbob%40x",
    "[name] => bob",
    "'name' => 'bob',",
    's:4:"name";s:3:"bob";',
    "let tokens: usize = 5;",
    'var name string = "x"',
    "const n: number = 5;",
    "password_changed_at: 2026-01-01",
    "api_keys=3",
    "apiKeyName: x",
    "credentials_file: /x",
    "CREATE USER app",
    "GRANT SELECT ON secrets TO app",
    "login bob ok",
    "login failed for bob, wrong password",
    "token expired after 5 s",
    "no token in request",
    "the secret of it",
    'secret "shop-tls" not found',
    'secrets "shop-tls" is forbidden: User "bob" cannot get resource',
    'configmap "x" not found',
    "Error: password must not be blank",
    "password 'must not be blank'",
    "on field 'password': must not be blank",
    "name: TOKEN_TTL, value: 5",
    '{"name":"TOKEN_COUNT","value":"5"}',
    "sum(rate(token_requests_total[5m])) by (instance)",
    "otp sent to bob",
    "otp_count=5",
    "pin: 17",
    "spin=1234",
    "shipping: 1234",
    "signature: valid",
    "sigma=5",
    "basic: true",
    "bearer of news",
    r"\u001b[36mtoken_count\u001b[0m=5",
    "#033[36mtokens#033[0m=512",
    "\x1b[36mtoken_count\x1b[0m=5",
    "\x1b[36mtokens\x1b[0m=\x1b[32m512\x1b[0m",
    "secret:\n  secretName: x",
    r"secret:\n  secretName: x",
    "token:\n- a",
    "password: |\n",
    "name: TOKEN_TTL\nvalue: 5",
    'form-data; name="user"\r\n\r\nbob\r\n',
    "volumes:\n- name: tls\n  secret:\n    defaultMode: 420\n    secretName: shop-tls",
)


def test_no_notation_leaks_and_no_harmless_twin_is_masked(
    record_property: Callable[[str, object], None],
) -> None:
    cleaned = {text: redact_text(text) for text in _MASKED}
    leaks = [
        text
        for text, clean in cleaned.items()
        if REDACTED not in clean or any(part in clean for part in ("hun", "ter2", "aHVud"))
    ]
    false_alarms = [text for text in _HARMLESS if redact_text(text) != text]
    record_property("notations", len(_MASKED))
    record_property("leaks", len(leaks))
    record_property("harmless", len(_HARMLESS))
    record_property("false_alarms", len(false_alarms))
    print(f"{len(leaks)} of {len(_MASKED)} leak, {len(false_alarms)} of {len(_HARMLESS)} masked")

    assert (leaks, false_alarms) == ([], [])
    assert len(set(_MASKED)) >= 80
    assert len(set(_HARMLESS)) >= 80


@pytest.mark.parametrize("text", _MASKED)
def test_what_was_masked_stays_as_it_is(text: str) -> None:
    clean = redact_text(text)

    assert redact_text(clean) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (r"{\"password\":\"hunter2\"}", r"{\"password\":[redacted]}"),
        (
            r"{\\\"password\\\":\\\"hunter2\\\",\\\"n\\\":1}",
            r"{\\\"password\\\":[redacted],\\\"n\\\":1}",
        ),
        (r'{"msg":"login password=\"hun\\\"ter2\" ok"}', '{"msg":"login password=[redacted] ok"}'),
        (r'{"password":"hunter2\\","n":1}', '{"password":[redacted],"n":1}'),
        (r"login password=\"hunter2\" ok", "login password=[redacted] ok"),
        (r'{"msg":"login password=hunter2\" ok"}', r'{"msg":"login password=[redacted]\" ok"}'),
        ('{"password"=>"hunter2"}', '{"password"=>[redacted]}'),
        (f"{_ESC}[36mpassword{_ESC}[0m=hunter2 ok", "password=[redacted] ok"),
        ("token: abc and password '12'", "token: [redacted] and password [redacted]"),
        ("<a><token>hunter2</token><b>1</b></a>", "<a><token>[redacted]</token><b>1</b></a>"),
        ("a: 1\npassword: |\n  hunter2\n  x\nb: 2", "a: 1\npassword: [redacted]\nb: 2"),
        ('{"password":["hunter2","x"],"n":1}', '{"password":[redacted],"n":1}'),
        ("{Password:hunter2 Port:5432}", "{Password:[redacted] Port:5432}"),
        ("~ password = 'a' -> 'b' # forces", "~ password = [redacted] # forces"),
        (
            '{"env":[{"name":"DB_PASSWORD","value":"x"}]}',
            '{"env":[{"name":"DB_PASSWORD","value":[redacted]}]}',
        ),
        (r"password=\net use", r"password=[redacted] use"),
        (r"password=\nuser=bob", r"password=\nuser=bob"),
        ("Cookie: a=b; c=d\r\nHost: x", "Cookie: [redacted]\r\nHost: x"),
        ("curl -u bob:hunter2 https://host/", "curl -u bob:[redacted] https://host/"),
    ],
)
def test_only_the_value_is_masked(text: str, clean: str) -> None:
    assert redact_text(text) == clean


def test_colours_stay_where_there_is_no_secret() -> None:
    text = f"{_ESC}[36mtoken_count{_ESC}[0m=5"

    assert redact_text(text) == text


def test_the_lines_of_a_log_are_masked_in_every_notation() -> None:
    redactor = LineRedactor()
    lines = [text for text in _MASKED if "\n" not in text]

    shown = [seen for line in ["ready", *lines] for seen in redactor.feed(line)]

    assert len(shown) == len(lines) + 1
    assert not any("hunter2" in line for line in shown)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_each_pattern_finds_its_examples(pattern: SecretPattern) -> None:
    assert pattern.examples
    for example in pattern.examples:
        clean = redact_text(example)

        assert any(mark in example.casefold() for mark in pattern.marks)
        assert pattern.regex.search(example)
        assert REDACTED in clean
        assert not any(part in clean for part in ("hunter2", "aHVud"))
        assert redact_text(clean) == clean


def test_every_name_of_a_pattern_is_its_own() -> None:
    names = [pattern.name for pattern in PATTERNS]

    assert len(set(names)) == len(names)


_VALUE = "hunter2Zq9"
_KEYS = (
    *("password", "passwd", "passphrase", "secret", "token", "api_key", "access-key", "privateKey"),
    *("client_secret", "AccountKey", "X-Auth-Token", "credentials"),
)
_NOT_KEYS = (
    "token_count",
    "tokens",
    "secretName",
    "password_policy",
    "monkey",
    "primary_key",
    "author",
)
_COLOURS = ("", f"{_ESC}[36m", f"{_ESC}[0m", f"{_ESC}[1;31m{_ESC}[K", "\x9b0m")
_AWKWARD = st.text("aZ09 \\\"'`,;&}{)(][<>=:%\té", max_size=8)


def _nested(text: str, depth: int) -> str:
    """Return a text within a string of JSON, `depth` times."""
    for _ in range(depth):
        text = json.dumps({"msg": text}, ensure_ascii=False)
    return text


@st.composite
def _keys(draw: st.DrawFn) -> str:
    """A key in any case, with something before it, and perhaps with colours within."""
    prefix = draw(st.sampled_from(("", "db_", "DB", "x.", "user-")))
    name = draw(st.sampled_from(_KEYS))
    key = prefix + draw(st.sampled_from((name, name.upper(), name.lower())))
    at = draw(st.integers(0, len(key)))
    return key[:at] + draw(st.sampled_from(("", f"{_ESC}[7m"))) + key[at:]


@st.composite
def _assignments(draw: st.DrawFn, keys: st.SearchStrategy[str], end: str) -> str:
    """A key and a value that ends with `end`, in the notation of some format."""
    key = draw(keys)
    before = draw(_AWKWARD)
    plain = draw(st.text("aZ09-_.", max_size=5))
    without_quotes = before.translate(dict.fromkeys(map(ord, "\\\"'&")))
    style = draw(
        st.sampled_from(("json", "logfmt", "word", "shell", "python", "csv", "html", "url", "xml"))
    )
    if style == "url":
        return f"https://host/?a=1&{key}={plain}{end}&b=2"
    if style == "xml":
        return f"<{key}>{draw(st.sampled_from(_COLOURS))}{plain}{end}</{key}>"
    name, value = {
        "json": (json.dumps(key, ensure_ascii=False), json.dumps(before + end)),
        "logfmt": (key, json.dumps(before + end, ensure_ascii=False)),
        "word": (key, plain + end),
        "shell": (key, f"'{without_quotes}{end}'"),
        "python": (repr(key), repr(before + end)),
        "csv": (f'""{key}""', f'""a{without_quotes}{end}""'),
        "html": (f"&quot;{key}&quot;", f"&quot;{without_quotes}{end}&quot;"),
    }[style]
    colours = [draw(st.sampled_from(_COLOURS)) for _ in range(4)]
    blanks = [draw(st.sampled_from(("", "", " ", "  ", "\t"))) for _ in range(2)]
    separator = draw(st.sampled_from(("=", ":", "=>", ":=", "==", "::")))
    left = f"{colours[0]}{blanks[0]}{colours[1]}"
    right = f"{colours[2]}{blanks[1]}{colours[3]}"
    return f"{name}{left}{separator}{right}{value}"


@given(
    assignment=_assignments(_keys(), _VALUE),
    depth=st.integers(0, 4),
    before=st.sampled_from(("", "login ", "x=1 ", "{", '{"n": 1, ')),
    after=st.sampled_from(("", " ok", "}", ', "n": 1}')),
)
def test_a_secret_never_survives(assignment: str, depth: int, before: str, after: str) -> None:
    assert _VALUE not in redact_text(_nested(before + assignment + after, depth))


@given(assignment=_assignments(st.sampled_from(_NOT_KEYS), "5"), depth=st.integers(0, 4))
def test_a_harmless_value_always_survives(assignment: str, depth: int) -> None:
    text = _nested(assignment, depth)

    assert redact_text(text) == text


_HOSTILE = (
    *(
        "password\\",
        'password"\\\\\\',
        "password=[",
        'password=["',
        'password=\\"',
        'password="a\\',
    ),
    *(
        "<password>",
        "<password x ",
        "<password a='b' ",
        "password{",
        "password, value",
        "password -> ",
    ),
    *(
        "password: |\n  a",
        "password=a -> ",
        "password\\n",
        "secret key",
        "key",
        "&quot;token",
        "%22token%22%3A%22",
    ),
    *(
        "curl -u a:",
        "curl ",
        "mysql -p",
        "docker login ",
        "cookie: ",
        "cookie: a=b;",
        "login a password ",
    ),
    *(
        "?sig=",
        "&key=",
        'form-data; name="password"\r\n',
        f"{_ESC}[0m",
        f"{_ESC}[",
        "pwd=/x",
        "env ",
        "::=",
    ),
    *(
        "secret='\\\\",
        'secret=""a',
        "%3A%2F%2Fa%3A",
        "a:a@tcp(",
        "jdbc:oracle:x:a/",
        "'token', '",
        "('token', '",
    ),
)


@pytest.mark.parametrize("hostile", _HOSTILE)
def test_the_search_takes_time_in_proportion_to_the_text(hostile: str) -> None:
    """Eight times the text takes eight times as long, not 64 times."""

    def cost(size: int) -> float:
        text = (hostile * (size // len(hostile) + 1))[:size]
        costs = []
        for _ in range(3):
            started = time.process_time()
            redact_text(text)
            costs.append(time.process_time() - started)
        return min(costs)

    assert cost(64 * 1024) < 30 * max(cost(8 * 1024), 0.0002)
