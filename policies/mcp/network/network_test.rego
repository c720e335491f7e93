package mcp.network_test

import data.fixtures
import data.mcp.network

_refused(allow, ip) if {
	request := fixtures.but(fixtures.request([], "ping"), {"context": {"ip": ip}})
	reasons := network.why with input as request with data.config as {"network": {"allow": allow}}
	{reason.code | some reason in reasons} == {"address_not_allowed"}
}

_blocks := ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"]

test_an_empty_list_accepts_every_address_and_none if {
	not _refused([], "198.51.100.1")
	not _refused([], null)
}

test_an_address_in_a_listed_block_is_accepted if {
	every ip in ["10.91.0.1", "192.0.2.255", "2001:db8::1", "::ffff:10.0.0.1"] {
		not _refused(_blocks, ip)
	}
}

test_an_address_outside_of_all_blocks_is_refused if {
	every ip in ["11.0.0.1", "192.0.3.0", "2001:db9::1", "::1"] {
		_refused(_blocks, ip)
	}
}

test_what_is_not_an_address_is_refused_and_fails_nothing if {
	every ip in ["", null, 10, "10.0.0.1x", "10.0.0.0/8", "10.0.0", "localhost", "10.0.0.1 "] {
		_refused(_blocks, ip)
	}
}

_bound(networks, ip) := {reason.code | some reason in reasons} if {
	request := fixtures.but(fixtures.request([], "ping"), {
		"context": {"ip": ip},
		"subject": {"properties": {"networks": networks}},
	})
	reasons := network.why with input as request with data.config as fixtures.config
}

test_a_credential_is_accepted_from_its_networks_only if {
	_bound(_blocks, "10.91.0.1") == set()
	_bound(_blocks, "2001:db8::1") == set()
	every ip in ["11.0.0.1", "2001:db9::1", "", null, 10] {
		_bound(_blocks, ip) == {"credential_not_allowed_from_address"}
	}
}

test_networks_of_no_known_form_bind_to_nothing if {
	every networks in [null, "10.0.0.0/8", {}] {
		_bound(networks, "10.91.0.1") == {"credential_not_allowed_from_address"}
	}
	request := json.remove(fixtures.request([], "ping"), ["subject/properties/networks"])
	not network.ok with input as request with data.config as fixtures.config
}
