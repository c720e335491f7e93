r"""The table of patterns by which secrets are found in text.

Loggers write a key and its value in many ways, and texts stand within texts: JSON within a string
within JSON, CSV within YAML. So each pattern takes every kind of quote (`"`, `\"`, `\\\"`, `""`, `%22`,
`&quot;`) and of separator (`=`, `:`, `=>`, `%3D`) instead of those of one format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MARK", "PATTERNS", "SecretPattern"]


@dataclass(frozen=True, slots=True)
class SecretPattern:
    """What a kind of secret looks like in text.

    Attributes:
        marks: lower-case texts; every text that the pattern matches contains one of them. Most texts
            contain no mark of any pattern, and are not searched further.
        regex: matches what is replaced, except for its group `kept`. Where it has a group `value`, the
            caller decides whether that value is a secret.
        examples: texts whose secret is hunter2, or its base64.
    """

    name: str
    marks: tuple[str, ...]
    regex: re.Pattern[str]
    examples: tuple[str, ...]


# Groups are repeated in atomic groups, not with possessive quantifiers: Python before 3.11.5 loses
# characters after those (python/cpython#106052).
#
# Each pattern is linear in the length of the text: repeated parts are bounded, atomic or cannot overlap,
# and a token can only begin where the character before is not part of one. Patterns that begin with one
# certain character (or a set of them) look around it only where they have found it, which is faster.

_CODED_QUOTE = (
    r"(?:%(?:25){0,3}2[27]|&(?:amp;){0,3}(?:quot|apos|#0?3[49]|#x2[27]);|\\{1,31}(?:u00|x)2[27])"
)
_QUOTE = rf"(?:(?:\\{{0,31}}+[\"'`]){{1,3}}|{_CODED_QUOTE})"
# b"x", string(7) "x", <<"x">>
_BEFORE_QUOTE = r"(?:[a-z]{1,2}+(?=[\\\"'`])|[a-z]{1,8}+\([0-9]{1,6}\)[ ]?|<<)?"
_TAB = r"(?:\\{1,31}t[ \t]{0,40}+)?"
_LINE_BREAK = r"(?:\r?\n|\\{1,31}n)"
_UNQUOTED = r"(?>(?:[^\s\"',;&}\\]++|\\(?!\\*[\"']))+)"


def _quoted(group: str) -> str:
    r"""Return a pattern of a quoted text; without its end, everything after its beginning.

    The quotes may be escaped any number of times, as in JSON within a string. A quote with as many
    backslashes as the first one ends the text. One with more is part of the text if they escape it: if
    they are, beyond those of the first one, an odd number of times what stands for one backslash here.

    Args:
        group: the name for the group of the backslashes before the first quote.
    """
    same = f"(?P={group})"

    # JSON escapes no single quotes, so that the first one does not tell the depth.
    more = r"\\++"
    odd = rf"\\(?>(?:{same}\\{same}\\)*){same}"

    def between(quote: str, escape: str) -> str:
        inner = f"{same}{escape}{quote}"
        return rf"{quote}(?>(?:[^\\{quote}]++|\\++(?!{quote})|{inner})*)(?:{same}\\*+{quote})?"

    twice = f'{same}"{same}"'
    return (
        # Three quotes (Python, TOML), and two, as in a field of CSV.
        r'(?:"""(?>(?:[^"]++|"(?!""))*)(?:""")?'
        rf'|(?P<{group}>\\{{0,31}})(?:"{same}"(?=[^\s",;&)}}\]\\])'
        rf'(?>(?:[^\\"]++|\\++(?!")|(?!{twice})\\*+")*)(?:{twice})?'
        rf"|{between(chr(34), odd)}|{between(chr(39), more)}|{between('`', more)}))"
    )


def _coded(group: str) -> str:
    """Return a pattern of a text between quotes as URLs, HTML or JSON encode them."""
    return rf"(?P<{group}>{_CODED_QUOTE})(?>(?:(?!(?P={group}))[^\r\n])*)(?:(?P={group}))?"


def _value(group: str) -> str:
    """Return a pattern of a value: quoted, in brackets, a block of YAML, or a word."""
    line = rf"(?>(?:(?!{_LINE_BREAK})[^\"])*)"
    indent = f"(?P={group}_indent)"
    return (
        rf"(?:(?=[\\\"'`a-z<]){_BEFORE_QUOTE}{_quoted(group)}"
        rf"|(?=[\\%&]){_coded(group + '_coded')}"
        # ["x", "y"], Some("x"), {"new": "x"}
        r"|[\w.:*&!@]{0,40}+[\[({](?!\{)"
        rf"(?>(?:[^\])}}\"'`\\]++|{_quoted(group + '_in')}|\\)*)[\])}}]?"
        rf"{_UNQUOTED}?"
        # The words of Spring about a field.
        r"|rejected[ ]value[ ]\[[^\]]*+\]?"
        # |
        #   x
        rf"|(?=[|>])[|>][+-]?[0-9]?[ \t]*+{_LINE_BREAK}(?P<{group}_indent>[ \t]{{1,40}}){line}"
        rf"(?>(?:{_LINE_BREAK}{indent}{line})*)"
        rf"|{_UNQUOTED})"
    )


_KINDS_OF_KEY = (
    *("api", "access", "secret", "private", "signing", "encryption"),
    *("account", "subscription", "auth", "master", "shared", "storage", "hmac"),
)
# The last word of a key, from one of its rare letters on: a search for `[WwKkCcPpBb]` passes over most
# of a text. A plural with a number counts secrets.
_KEY_LETTERS = "[WwKkCcPpBb]"
_KEY = (
    r"(?:(?:(?<=passw)(?:or)?d|(?<=passp)hrase|(?<=passc)ode)(?:s(?!\W{1,6}[0-9]))?"
    r"|(?<=sec)ret(?:_id)?|(?<=tok)en|(?<=c)redentials?|(?<=b)earer"
    r"|(?<=k)ey(?:"
    + "|".join(rf"(?<={kind}key)|(?<={kind}[_. -]key)" for kind in _KINDS_OF_KEY)
    + r"))(?>(?:[_.-]?(?:value|string|text|plain(?:text)?|raw|data|confirm(?:ation)?|repeat|again|verify"
    r"|old|new|current|hash|digest|salt|b(?:ase)?64|[0-9]{1,3})(?![a-z0-9]))?)"
)
# A quote, brackets as in `user[password]`, and of a pair of name and value the second name.
_END_OF_KEY = (
    rf"(?:(?=[\\\"'`%&\])>])(?>{_QUOTE}?)(?>(?:\]|\)|>>|%(?:25){{0,3}}5D){{0,2}}))?"
    rf"(?:(?>(?:[\s,;{{:=]{{1,40}}+|\\{{1,31}}[nrt]){{1,8}})(?>{_QUOTE}?)"
    rf"(?=[vs&b])(?:value|val|str(?:ing)?|&str|bytes)(?![\w-])(?>{_QUOTE}?))?"
)
# Kubernetes has objects under such keys that tell where a secret is: {"secretName": "x"}.
_REFERENCE = (
    rf"\{{\s{{0,40}}+{_QUOTE}?(?:secretName|name|namespace|optional|items|defaultMode|path|audience"
    rf"|expirationSeconds|key){_QUOTE}?\s{{0,4}}:"
)
_SEPARATOR = (
    r"(?>={1,3}(?:~|>|&gt;|\\{1,31}u003e)?|:{1,2}=?|%(?:25){0,3}3[AD]|\\{1,31}u003d|;s:[0-9]{1,6}:)"
)
# An escaped line break after which something else begins; a value may begin like one, too (`\net`).
_END_OF_LINE = r"\\{1,31}[nr](?:[\s\\\"'}]|-\s|[\w.-]{1,64}+\s?[=:]|\Z)"
_ASSIGNED = (
    rf"[ \t.]{{0,40}}+{_TAB}{_SEPARATOR}"
    rf"(?:(?>(?:\s{{1,40}}+|\\{{1,31}}[nrt]){{0,8}})(?={_BEFORE_QUOTE}{_QUOTE})|[ \t]{{0,40}}+{_TAB})"
    rf"(?!\s|{_END_OF_LINE}|{_REFERENCE})"
)
_LESS = r"(?:<|&lt;|%3C|\\{1,31}u003c)"
_MORE = r"(?:>|&gt;|%3E|\\{1,31}u003e)"
# <password type="x">, <property name="password">, <key>password</key><string>
_ELEMENT = (
    r"(?:\\{0,31}[\"'])?"
    r"(?:(?>(?:\s{1,8}[\w:.-]{1,64}+=\\{0,31}(?:\"[^\"<>]{0,256}+\"|'[^'<>]{0,256}+')){0,8})\s?"
    rf"|{_LESS}/key{_MORE}\s{{0,40}}{_LESS}string){_MORE}(?!{_LESS}/)"
)
_KEY_MARKS = ("pass", "secret", "token", "key", "credential", "bearer")


def _pattern(
    name: str, marks: tuple[str, ...], regex: str, flags: int, *examples: str
) -> SecretPattern:
    return SecretPattern(name, marks, re.compile(regex, flags), examples)


PATTERNS = (
    _pattern(
        "PEM private key; without its end, everything after its beginning",
        ("-----begin",),
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [^-]{0,60}-----|\Z)",
        re.DOTALL,
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nhunter2",
    ),
    _pattern(
        "JSON Web Token, also one whose signature was cut off",
        ("eyj",),
        r"eyJ(?<![\w-]eyJ)[\w-]{6,}\.[\w-]*(?:\.[\w-]*)*",
        re.ASCII,
        "eyJhbGciOiJ9.hunter2.x",
        "session=eyJhbGciOiJ9.hunter2",
    ),
    _pattern(
        "bearer token",
        ("bearer",),
        r"(?P<kept>[Bb](?<![\w-].)(?i:earer)(?:[ \t]{1,4}|%20|\+))[\w.~+/=-]{4,}",
        re.ASCII,
        "Bearer hunter2",
        "curl -H 'x: bearer hunter2'",
    ),
    _pattern(
        "header Authorization",
        ("authorization",),
        # Schemes with parameters have commas.
        rf"(?P<kept>[Aa](?i:uthorization{_END_OF_KEY}{_ASSIGNED}))(?i:(?P<value>"
        r"(?:Digest|OAuth|Hawk|Signature|AWS4-HMAC-SHA256)[ ][^\r\n]*"
        rf"|(?=[a-z]{{0,2}}{_QUOTE}|\[){_value('auth')}|[^\r\n,;}}]+))",
        0,
        "authorization: hunter2",
        '{"Authorization": "Digest username=bob, response=hunter2"}',
        r"{\"authorization\":\"hunter2\"}",
    ),
    _pattern(
        # With one that is no list of pairs, `cookie: hunter2` is not the header.
        "headers Cookie and Set-Cookie",
        ("cookie",),
        rf"(?P<kept>[Cc](?i:ookies?{_END_OF_KEY}{_ASSIGNED}))(?i:(?P<value>"
        rf"(?=[a-z]{{0,2}}{_QUOTE}|[\[{{]){_value('cookie')}|[\w.-]{{1,128}}=[^\r\n\"']*))",
        0,
        "Cookie: session=hunter2; theme=dark",
        '"set-cookie": "session=hunter2; Path=/"',
    ),
    _pattern(
        # Base64 has digits, padding or a change of case within; a word after "basic" has not.
        "basic credentials",
        ("basic",),
        r"(?P<kept>[Bb](?<![\w-].)(?i:asic)[ \t]{1,4})(?=[A-Za-z0-9+/]*(?:[0-9=]|[a-z][A-Z]))"
        r"[A-Za-z0-9+/]{8,}={0,2}",
        re.ASCII,
        "Basic aHVudGVyMg==",
        "sent basic aHVudGVyMg== to it",
    ),
    _pattern(
        # ~/.docker/config.json has user and password as basic credentials under the key auth.
        "credentials of a container registry",
        ("auth",),
        rf"(?P<kept>[Aa](?<![\w-].)uth{_QUOTE}\s{{0,40}}:\s{{0,40}}{_QUOTE})"
        r"(?=[A-Za-z0-9+/]*(?:[0-9=]|[a-z][A-Z]))[A-Za-z0-9+/]{8,}={0,2}",
        re.ASCII,
        '{"auths": {"registry.example.com": {"auth": "aHVudGVyMg=="}}}',
    ),
    _pattern(
        # Up to the last @ of the host's part, as clients read it; a password that should have been
        # encoded ends at the first @ after it, where it is no port.
        "https://user:password@host",
        ("://", ":\\/"),
        r"(?P<kept>:(?:\\{0,15}/){2}[^\s/:\"'<>]{0,256}:)"
        r"(?:[^\s/?#\"'<>]{1,}|(?!\d{1,5}[?#\"'<>])[^\s/@]{1,})(?=@)",
        0,
        "redis://:hunter2@host/0",
        "postgresql://app:hunter2@db1:5432/shop",
        r"{\"url\":\"https:\/\/bob:hunter2@host\/\"}",
    ),
    _pattern(
        "URL with user and password within another URL",
        ("%3a", "%253a"),
        r"(?P<kept>%(?:25)?3A(?:%(?:25)?2F|/){2}[^\s/:%\"'<>]{0,256}(?:%(?:25)?3A|:))"
        r"(?:(?!%(?:25)?(?:2F|40))[^\s/@\"'<>&])+(?=%(?:25)?40|@)",
        re.IGNORECASE,
        "next=https%3A%2F%2Fbob%3Ahunter2%40host",
        "next=https%253A%252F%252Fbob%253Ahunter2%2540host",
    ),
    _pattern(
        "data source name of a database driver",
        ("@tcp(", "@unix(", "jdbc:oracle"),
        r"(?:(?P<kept>jdbc:oracle:[a-z]{1,8}:[^\s/@\"']{1,128}/)[^\s@\"']{1,256}(?=@)"
        r"|(?<=:)[^\s:@/\"']{1,256}(?=@(?:tcp|unix)\())",
        re.IGNORECASE,
        "app:hunter2@tcp(db1:3306)/shop",
        "jdbc:oracle:thin:app/hunter2@db1:1521/shop",
    ),
    _pattern(
        # As one text or as two of a list ("--api-key", "…"); U+FFFD stands for NUL.
        "option of a command",
        _KEY_MARKS,
        r"(?P<kept>-(?<![\w-].)-?[\w.-]{0,40}?"
        r"(?:pass(?:word|wd|phrase|code)|(?<=-)pass|secret|token|(?:api|access|secret|private)[_-]?key)"
        rf"(?:[ \t\ufffd]{{1,4}}|{_QUOTE},\s{{0,32}}(?={_QUOTE}[^\"'-])))"
        rf"(?:{_quoted('option')}|[^\s\"',;&}}\\\ufffd-][^\s\"',;&}}\ufffd]*)",
        re.IGNORECASE,
        "mysql --password hunter2",
        '["--api-key", "hunter2"]',
        "vault login -token hunter2",
    ),
    _pattern(
        "password on the command line of a known command",
        ("mysql", "mariadb", "sshpass", "login", "redis-cli", "curl", "wget", "ldap"),
        r"(?P<kept>\b(?:"
        r"(?:mysql|mariadb)[\w-]{0,16}[ \t](?:[^\r\n;|]{0,256}?[ \t])??-p"
        r"|sshpass[ \t]{1,4}-p[ \t]{0,4}"
        r"|(?:docker|podman|helm|az|oc|skopeo|crane)[ \t](?:\w{1,16}[ \t])?login[ \t]"
        r"(?:[^\r\n;|]{0,256}?[ \t])??-p[ \t]{1,4}"
        r"|redis-cli[ \t](?:[^\r\n;|]{0,256}?[ \t])??-a[ \t]{1,4}"
        r"|ldap\w{1,16}[ \t](?:[^\r\n;|]{0,256}?[ \t])??-w[ \t]{1,4}"
        r"|(?:curl|wget)\b(?:[^\r\n;|]{0,256}?[ \t\"',])??"
        r"(?:-u|-U|--user|--proxy-user)[ \t=\"',]{0,8}[^\s:\"']{0,128}:"
        rf"))(?:{_quoted('command')}|[^\s\"';|&<][^\s\"';|&]*)",
        0,
        "curl -u bob:hunter2 https://host/",
        "sshpass -p hunter2 ssh host",
        "redis-cli -h db1 -a hunter2 ping",
    ),
    _pattern(
        "assignment, in the notation of any format",
        _KEY_MARKS,
        rf"(?P<kept>{_KEY_LETTERS}(?i:{_KEY}(?:{_END_OF_KEY}{_ASSIGNED}|(?P<element>{_ELEMENT})"
        # (b"x-api-key", b"x") and ["x-api-key", "x"]
        rf"|{_QUOTE},\s{{0,40}}(?=b?{_quoted('second')}\))"
        rf"|(?:(?<=-key)|(?<=-token)){_QUOTE},\s{{0,40}}(?=b?{_QUOTE}[^\"'-])"
        # PASSWORD 'x', (password . "x")
        r"|(?:(?<=password)|(?<=passwd)|(?<=passphrase))[ \t]{1,8}(?=\\*[\"'])|[ ]\.[ ](?=\\*\")"
        rf")))(?i:(?P<value>(?(element)(?:<!\[CDATA\[(?>(?:[^\]]++|\](?!\]>))*)(?:\]\]>)?"
        rf"|(?>(?:(?!{_LESS})[^<])+)(?={_LESS}/)|[^\s<&\\]++\Z"
        # Of a change both values: "x" -> "y".
        rf")|{_value('old')}(?:[ ]{{1,4}}->[ ]{{1,4}}{_value('new')})?)))",
        0,
        r"{\"password\":\"hunter2\"}",
        "db-password: hunter2",
        "API_KEY=hunter2",
        "<password>hunter2</password>",
        "<key>password</key><string>hunter2</string>",
    ),
    _pattern(
        # `pass: done` and `pass=12` are results of tests, PWD=/tmp is a folder.
        "assignment to a short name",
        ("pwd", "pass"),
        r"(?P<kept>[Pp](?:(?i:(?<![a-z].)wd|(?<=[_.-].)ass|(?<![a-z].)ass(?=\\*[\"'=]))"
        r"|(?<=[a-z]P)(?:wd|ass))"
        rf"(?i:{_END_OF_KEY}{_ASSIGNED})"
        r"(?!\\*[\"']?(?:[/~]|[0-9]{1,4}(?![\w.-])|(?i:ok|yes|no|passed|failed)(?![\w-]))))"
        rf"(?i:(?P<value>{_value('short')}))",
        0,
        "Server=db1;Uid=sa;Pwd=hunter2;",
        '{"pass": "hunter2"}',
    ),
    _pattern(
        "parameter of a URL",
        ("?", "&"),
        r"(?P<kept>[?&](?:(?:auth|jwt|otp|pin|sig)=|(?:[\w-]{0,20}signature|key|code)="
        r"(?=[^\s&\"']*[0-9])(?=[^\s&\"']*[a-z])(?=[^\s&\"']{16})))[^\s&\"'\\<>]+",
        re.IGNORECASE,
        "https://host/blob?sv=2024&sig=hunter2",
        "https://host/login?otp=hunter2",
    ),
    _pattern(
        "field of a form in parts",
        ("form-data",),
        rf"(?P<kept>form-data;\s?name={_QUOTE}[\w.\[\]-]{{0,64}}?.{_KEY}\]?{_QUOTE}(?:;[^\r\n\\]{{0,256}})?"
        rf"(?:(?:\r|\\{{1,31}}r)?{_LINE_BREAK}){{2}})[^\r\n\\]+",
        re.IGNORECASE,
        'form-data; name="password"\r\n\r\nhunter2\r\n',
    ),
    _pattern(
        "word after a command that sets a variable or a header",
        _KEY_MARKS,
        r"(?P<kept>[SsEePp](?i:(?:(?<=s)et(?:env|[ ]-[a-z]{1,4})|(?<![\w-].)nv|(?<=p)roxy_set_header)"
        rf"[ \t]{{1,8}}[\w.-]{{0,64}}?.{_KEY}[ \t]{{1,8}}))(?i:(?P<value>{_value('word')}))",
        0,
        "setenv DB_PASSWORD hunter2",
        "proxy_set_header X-Auth-Token hunter2;",
    ),
    _pattern(
        "password in a statement of SQL, a configuration of Redis, a .netrc",
        ("identified", "requirepass", "masterauth", "login"),
        r"(?P<kept>identified[ ](?:with[ ]\w{1,64}[ ])?(?:by|as)[ ](?:password[ ])?(?=\\*[\"'])"
        r"|\b(?:requirepass|masterauth)[ \t]{1,8}"
        r"|(?<=[ \t])login[ \t]{1,8}\S{1,256}[ \t]{1,8}password[ \t]{1,8})"
        rf"(?P<value>{_value('statement')})",
        re.IGNORECASE,
        "CREATE USER app IDENTIFIED BY 'hunter2'",
        "requirepass hunter2",
        "machine host login bob password hunter2",
    ),
    _pattern(
        "key that announces itself: AWS, GitHub, Slack, Google, Vault, PyPI, Hugging Face and the like",
        (
            *(
                "akia",
                "asia",
                "ghp_",
                "gho_",
                "ghu_",
                "ghs_",
                "ghr_",
                "github_pat_",
                "xox",
                "glpat-",
                "emcp_",
            ),
            *("hvs.", "hvb.", "sk-", "aiza", "ya29.", "k_live_", "k_test_", "npm_", "dckr_pat_"),
            *("hf_", "pypi-", "sg."),
        ),
        r"(?<![\w-])(?:A[KS]IA[A-Z0-9]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
        r"|xox[a-z]-[\w-]{10,}|glpat-[\w-]{16,}|emcp_[a-z2-7]{12}_[a-z2-7]{16,}|hv[bs]\.[\w-]{16,}|sk-[\w-]{16,}"
        r"|AIza[\w-]{30,}|ya29\.[\w-]{16,}|hf_[A-Za-z0-9]{30,}|pypi-[\w-]{32,}"
        r"|SG\.[\w-]{16,}\.[\w-]{16,}|[rs]k_(?:live|test)_\w{10,}|npm_[A-Za-z0-9]{30,}|dckr_pat_[\w-]{20,})",
        re.ASCII,
        "ghp_hunter2hunter2hunter2",
        "glpat-hunter2hunter2hunter2",
        "emcp_abcdefghij23_hunter2hunter2hunter2",
        "hvs.hunter2hunter2hunter2",
        "hvb.hunter2hunter2hunter2",
        "ya29.hunter2hunter2hunter2",
        "hf_hunter2hunter2hunter2hunter2hunter2",
        "pypi-hunter2hunter2hunter2hunter2hunter2hunter2",
        "SG.hunter2hunter2hunter2.hunter2hunter2hunter2",
    ),
)

MARK = re.compile("|".join(map(re.escape, sorted({m for each in PATTERNS for m in each.marks}))))
"""Finds any mark of any pattern in a text in lower case."""
