package mcp.patterns_test

import data.mcp.patterns

_matching(pattern, names) := {name | some name in names; patterns.matches(pattern, name)}

test_a_star_stands_for_any_letters_anywhere if {
	_matching("team-*", ["team-a", "team-", "team", "xteam-a"]) == {"team-a", "team-"}
	_matching("*-eu", ["prod-eu", "-eu", "eu", "prod-eu-1"]) == {"prod-eu", "-eu"}
	_matching("a-*-z", ["a-b-z", "a--z", "a-b-c-z", "a-z"]) == {"a-b-z", "a--z", "a-b-c-z"}
	_matching("*", ["a", "a-b", "a.b"]) == {"a", "a-b"}
}

test_names_of_namespaces_have_letters_digits_and_dashes_only if {
	every name in ["a", "team-1", "-"] {
		patterns.is_label(name)
	}
	every name in ["", "A", "a.b", "a/b", "a b", "a*", "ä", "a\n", null, 7] {
		not patterns.is_label(name)
	}
}

test_the_longest_pattern_that_matches_is_found if {
	patterns.longest({"a-*", "a-b-*", "x-b-c-*", "*"}, "a-b-c") == "a-b-*"
	not patterns.longest({"a-*"}, "b")
}

test_patterns_have_in_common_what_begins_and_ends_as_both if {
	patterns.common("team-*", "team-a-*") == {"team-a-*"}
	patterns.common("team-*", "*") == {"team-*"}
	patterns.common("team-*", "*-web") == {"team-*-web", "team-web"}
	patterns.common("*-web", "team-*") == {"team-*-web", "team-web"}
	patterns.common("a*a", "aa*") == {"aa*a", "aa"}
	patterns.common("ab*", "*bab") == {"ab*bab", "abab"}
}

test_patterns_that_begin_or_end_otherwise_have_nothing_in_common if {
	patterns.common("team-*", "prod-*") == set()
	patterns.common("*-eu", "*-us") == set()
	patterns.common("team-*-eu", "team-*-us") == set()
}
