package mcp.sign_in_test

import data.fixtures
import data.mcp.sign_in

_attempt(method, user) := {
	"version": 2,
	"attempt": {"method": method, "user": user},
	"context": object.remove(fixtures.request([], "ping").context, ["client_info"]),
}

_password := _attempt("password", "alice")

_token := _attempt("token", "")

_asked(request, config) := answer if {
	answer := sign_in.authorize with input as request with data.config as config
}

_charges(request) := _asked(request, fixtures.config).charges

# The answer once each window holds this many attempts.
_after(request, number) := _asked(
	object.union(request, {"counts": fixtures.counts(_charges(request), number)}),
	fixtures.config,
)

_ids(request) := [charge.id | some charge in _charges(request)]

test_a_password_counts_for_its_user_and_address_and_a_token_for_its_address if {
	_asked(_password, fixtures.config).effect == "count"
	_ids(_password) == ["sign_in:user", "password:address"]
	_ids(_token) == ["token:address"]
}

test_attempts_within_the_limits_are_allowed_and_further_ones_limited if {
	_after(_password, 10).effect == "allow"
	answer := _after(_password, 11)
	answer.effect == "limited"
	answer.retry_after_ms == 1000
	answer.charges == []
	fixtures.codes(answer) == {"rate_limited"}
	_after(_token, 100).effect == "allow"
	_after(_token, 101).effect == "limited"
}

test_one_full_window_is_enough if {
	[user, address] := _charges(_password)
	counts := [
		{"charge": user, "count": 1, "reset_ms": 5},
		{"charge": address, "count": 51, "reset_ms": 7},
	]
	answer := _asked(object.union(_password, {"counts": counts}), fixtures.config)
	answer.effect == "limited"
	answer.retry_after_ms == 7
}

test_counts_of_other_windows_are_no_counts if {
	counts := fixtures.counts(_charges(_token), 1)
	_asked(object.union(_password, {"counts": counts}), fixtures.config).effect == "count"
	_asked(object.union(_token, {"counts": []}), fixtures.config).effect == "count"
}

test_a_count_that_is_no_number_is_denied if {
	every number in ["1", null, -1] {
		answer := _after(_password, number)
		answer.effect in {"deny", "limited"}
	}
}

test_users_have_windows_of_their_own_and_the_number_of_windows_is_bounded if {
	keys := {key |
		some user in ["alice", "bob", "carol"]
		key := _charges(_attempt("password", user))[0].key
	}
	count(keys) == 3
	every key in keys {
		regex.match(`^sign_in:user:[0-9a-f]{5}$`, key)
	}
}

_key_of_address(ip) := _charges(fixtures.but(_token, {"context": {"ip": ip}}))[0].key

test_an_ipv6_network_of_64_bits_is_one_address if {
	_key_of_address("2001:db8::1") == _key_of_address("2001:db8::ffff:2")
	_key_of_address("2001:db8::1") != _key_of_address("2001:db8:0:1::1")
	_key_of_address("192.0.2.1") != _key_of_address("192.0.2.2")
}

test_tokens_and_passwords_are_counted_apart if {
	_charges(_password)[1].key != _charges(_token)[0].key
}

test_an_attempt_that_cannot_be_counted_is_denied_whatever_the_stores_say if {
	config := object.union(fixtures.config, {"stores": {"counters": {"when_down": "allow"}}})
	answer := _asked(fixtures.but(_password, {"context": {"counters": "down"}}), config)
	answer.effect == "deny"
	fixtures.codes(answer) == {"counters_unavailable"}
}

test_an_attempt_that_cannot_be_recorded_is_denied_unless_the_stores_say_otherwise if {
	request := fixtures.but(_password, {"context": {"audit": "down"}})
	fixtures.codes(_asked(request, fixtures.config)) == {"audit_unavailable"}
	config := object.union(fixtures.config, {"stores": {"audit": {"when_down": "allow"}}})
	_asked(request, config).effect == "count"
}

test_an_address_that_is_not_listed_may_not_sign_in if {
	config := object.union(fixtures.config, {"network": {"allow": ["192.0.2.0/24"]}})
	answer := _asked(_password, config)
	answer.effect == "deny"
	fixtures.codes(answer) == {"address_not_allowed"}
}

test_an_incomplete_attempt_is_denied if {
	every request in [
		_attempt("password", ""),
		_attempt("password", " "),
		_attempt("certificate", "alice"),
		object.union(_password, {"version": 1}),
		object.remove(_password, ["attempt"]),
	] {
		answer := _asked(request, fixtures.config)
		answer.effect == "deny"
		fixtures.codes(answer) == {"undecided"}
	}
	_asked({}, fixtures.config).effect == "deny"
}

test_nothing_is_allowed_without_limits if {
	every path in ["sign_in/password/user", "sign_in/password/address", "sign_in/token/address", "sign_in"] {
		config := json.remove(fixtures.config, [path])
		some request in [_password, _token]
		_asked(request, config).effect == "deny"
	}
}
