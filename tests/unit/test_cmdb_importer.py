"""Files for the CMDB are read in three formats and checked as a whole before anything is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mcp_server.cli.cmdb_import import (
    AssetDifference,
    CmdbImport,
    Counts,
    Format,
    ImportReport,
    InvalidImport,
    NetBoxRules,
    Source,
    files,
    read_sources,
    report_text,
)
from mcp_server.tools.cmdb.model import AssetStatus, AssetType, Environment

_NO_ADDRESSES: list[object] = [True, False, 0, 1, 2**100, 1.5, [1], "fe80::1%eth0"]
_NO_TIMES: list[object] = [True, 1, 1.5, 1700000000, "1700000000", "2026", "soon", []]


def _row(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "name": "a", "type": "server", "environment": "prod"} | changes


def _device(**changes: Any) -> dict[str, Any]:
    return {
        "id": 12,
        "name": "web1",
        "device_type": {"slug": "r650"},
        "role": {"id": 3, "name": "Router", "slug": "router"},
        "status": {"value": "active", "label": "Active"},
        "primary_ip": {"address": "10.0.0.5/24"},
        "custom_fields": {"environment": "production"},
        "tags": [],
    } | changes


class Reader:
    """Writes files and reads them back as imports."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def file(self, name: str, content: str | bytes) -> str:
        path = self._directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def csv(self, text: str, **how: Any) -> CmdbImport:
        return read_sources([Source(self.file("a.csv", text))], **how)

    def json(self, document: object, **how: Any) -> CmdbImport:
        return read_sources([Source(self.file("a.json", json.dumps(document)))], **how)

    def netbox(self, document: object, **rules: Any) -> CmdbImport:
        source = Source(self.file("nb.json", json.dumps(document)), Format.NETBOX)
        return read_sources([source], netbox=NetBoxRules(**rules))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.chdir(tmp_path)
    return Reader(Path())


def _faults(caught: pytest.ExceptionInfo[InvalidImport]) -> list[str]:
    return list(caught.value.faults)


class TestJson:
    def test_what_may_be_left_out_has_a_default(self, reader: Reader) -> None:
        (asset,) = reader.json([_row()]).assets

        assert (asset.tenant, asset.status, asset.attributes) == (
            "default",
            AssetStatus.ACTIVE,
            {},
        )

    def test_an_object_holds_assets_and_relations(self, reader: Reader) -> None:
        relation = {"from": "a", "to": "b", "type": "runs_on"}

        content = reader.json({"assets": [_row(), _row(id="b")], "relations": [relation]})

        assert [asset.id for asset in content.assets] == ["a", "b"]
        assert content.relations[0].relation.model_dump(by_alias=True) == {
            "tenant": "default",
            **relation,
        }

    @pytest.mark.parametrize(
        ("row", "fault"),
        [
            (_row(type="router"), "('a'): type: Input should be 'server', 'database' or"),
            (_row(environment="production"), "('a'): environment: Input should be 'prod'"),
            (_row(ip_address="10.0.0.256"), "('a'): ip_address: value is not a valid"),
            *(
                (
                    _row(ip_address=value),
                    "('a'): ip_address: must be text with an IPv4 or IPv6 addr",
                )
                for value in _NO_ADDRESSES
            ),
            *(
                (
                    _row(last_updated=value),
                    "('a'): last_updated: must be text with an RFC 3339 time",
                )
                for value in _NO_TIMES
            ),
            *(
                (_row(**{field: value}), f"('a'): {field}: Input should be ")
                for field in ("name", "type", "environment", "status", "owner", "attributes")
                for value in (True, 1)
            ),
            (_row(tenant=True), "('a'): tenant: Input should be a valid string"),
            (_row(name=""), "('a'): name: String should have at least 1 character"),
            (_row(colour="red"), "('a'): colour: unknown field; known are attributes, environ"),
            (_row(last_updated="2026-01-01T00:00:00"), "('a'): last_updated: Input should have"),
            (_row(name="a\0"), "('a'): name: NUL characters cannot be stored"),
            (_row(attributes={"x": [{"y": "\0"}]}), "('a'): attributes: NUL characters"),
            (_row(attributes={"x": float("nan")}), "('a'): attributes: holds what JSON"),
            (_row(attributes=[]), "('a'): attributes: Input should be a valid dict"),
            ({"id": "a"}, "('a'): name: Field required"),
        ],
    )
    def test_a_bad_record_is_named_with_its_field(
        self, reader: Reader, row: object, fault: str
    ) -> None:
        with pytest.raises(InvalidImport) as caught:
            reader.json([_row(id="good"), row])

        assert _faults(caught)[0].startswith(f"a.json record 2 {fault}")

    @pytest.mark.parametrize("when", ["2026-01-31T12:00:00Z", "2026-01-31t13:30:00+01:30"])
    def test_a_time_is_text_as_of_rfc_3339(self, reader: Reader, when: str) -> None:
        (asset,) = reader.json([_row(last_updated=when)]).assets

        assert asset.last_updated == datetime(2026, 1, 31, 12, tzinfo=UTC)

    @pytest.mark.parametrize("end", ["from", "to", "type"])
    @pytest.mark.parametrize("value", [True, 1])
    def test_a_relation_is_of_texts(self, reader: Reader, end: str, value: object) -> None:
        with pytest.raises(InvalidImport, match=f": {end}: Input should be a valid string"):
            reader.json({"relations": [{"from": "a", "to": "b", "type": "uses", end: value}]})

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("{", "a.json: not valid JSON: Expecting property name"),
            ('"x"', "a.json: expected a list of assets or an object with assets and rel"),
            ('["x"]', "a.json record 1: Input should be a valid dictionary"),
            ('{"hosts": []}', "a.json: unknown key 'hosts'; known are assets, relations"),
            ('{"assets": {}}', "a.json: assets: expected a list, not dict"),
            (
                '[{"id": "a", "attributes": {"x": {"k": 1, "k": 1}}}]',
                "a.json: not usable JSON: the key 'k' appears twice",
            ),
            *(
                (f'[{{"id": {value}}}]', "a.json record 1: id: Input should be a valid string")
                for value in ("true", "1")
            ),
            ('[{"id": "a", "id": "b"}]', "a.json: not usable JSON: the key 'id' appears twice"),
            ("[" * 100_000, "a.json: not usable JSON: nested too deeply"),
        ],
    )
    def test_a_document_of_another_shape_is_refused(
        self, reader: Reader, text: str, fault: str
    ) -> None:
        with pytest.raises(InvalidImport) as caught:
            read_sources([Source(reader.file("a.json", text))])

        assert _faults(caught)[0].startswith(fault)

    def test_every_fault_of_every_file_is_listed(self, reader: Reader) -> None:
        rows = [_row(id=str(number), type="x", environment="y") for number in range(100)]
        sources = [
            Source(reader.file("a.json", json.dumps(rows))),
            Source(reader.file("r.csv", "from,to,type\na,a,uses\n"), relations=True),
        ]

        with pytest.raises(InvalidImport) as caught:
            read_sources(sources)

        assert len(_faults(caught)) == 201
        assert _faults(caught)[-1] == (
            "r.csv line 2 ('a' to 'a'): to: an asset does not depend on itself"
        )

    def test_a_repeated_id_names_both_records(self, reader: Reader) -> None:
        with pytest.raises(InvalidImport) as caught:
            reader.json([_row(), _row(name="other")])

        assert _faults(caught) == ["a.json record 2 ('a'): id: the same as in a.json record 1"]

    def test_a_repeated_relation_names_both_records(self, reader: Reader) -> None:
        relation = {"from": "a", "to": "b", "type": "uses"}

        with pytest.raises(InvalidImport, match=r"the same relation as in a\.json relation 1"):
            reader.json({"relations": [relation, relation]})


class TestTenants:
    def test_the_same_id_in_two_tenants_is_two_assets(self, reader: Reader) -> None:
        assert len(reader.json([_row(tenant="one"), _row(tenant="two")]).assets) == 2

    def test_the_tenant_of_the_import_is_that_of_records_without_one(self, reader: Reader) -> None:
        (asset,) = reader.json([_row()], tenant="acme").assets

        assert asset.tenant == "acme"

    def test_a_record_of_another_tenant_than_the_imports_is_refused(self, reader: Reader) -> None:
        with pytest.raises(InvalidImport, match="'other' is not the tenant of this import, 'acme'"):
            reader.json([_row(tenant="other")], tenant="acme")


class TestCsv:
    def test_columns_go_by_their_names(self, reader: Reader) -> None:
        text = (
            "\ufeffname,id,environment,type,ip_address,attributes.rack,attributes\r\n"
            '"db1, the old one",db1,prod,database,10.0.0.1,r7,"{""units"": 2}"\r\n'
        )

        (asset,) = reader.csv(text).assets

        assert asset.model_dump(mode="json", exclude_unset=True) == {
            "tenant": "default",
            "id": "db1",
            "name": "db1, the old one",
            "type": "database",
            "environment": "prod",
            "ip_address": "10.0.0.1",
            "attributes": {"rack": "r7", "units": 2},
        }

    def test_an_empty_cell_is_none_where_there_may_be_none(self, reader: Reader) -> None:
        (asset,) = reader.csv("id,name,type,environment,owner,status\na,a,server,prod,,\n").assets

        assert asset.model_fields_set == {"tenant", "id", "name", "type", "environment", "owner"}

    @pytest.mark.parametrize(
        ("text", "faults"),
        [
            (
                "id,name,type,environment,colour\na,a,server,prod,red\n",
                [
                    (
                        "a.csv line 1: unknown column 'colour'; known are id, name, type, "
                        "environment, status, ip_address, owner, last_updated, attributes, tenant "
                        "and attributes.NAME"
                    )
                ],
            ),
            (
                "id,id,name\n",
                [
                    "a.csv line 1: column 'id' appears twice",
                    "a.csv line 1: column 'type' is missing",
                    "a.csv line 1: column 'environment' is missing",
                ],
            ),
            (
                'id,name,type,environment\na,"two\nlines",server,prod\nb,b,server\nc,c,server,x\n',
                [
                    "a.csv line 4: 3 cells, but the header has 4",
                    "a.csv line 5 ('c'): environment: Input should be 'prod', 'staging' or 'dev'",
                ],
            ),
            (
                "id,name,type,environment,attributes\na,a,server,prod,[]\nb,b,server,prod,{\n",
                [
                    "a.csv line 2: attributes: must be a JSON object",
                    (
                        "a.csv line 3: attributes: not valid JSON: Expecting property name enclosed "
                        "in double quotes: line 1 column 2 (char 1)"
                    ),
                ],
            ),
            (
                (
                    "id,name,type,environment,attributes,attributes.rack\n"
                    'a,a,server,prod,"{""rack"": 1, ""rack"": 2}",\n'
                    'b,b,server,prod,"{""x"": {""y"": 1, ""y"": 1}}",\n'
                    'c,c,server,prod,"{""rack"": 1}",r7\n'
                    'd,d,server,prod,"{""rack"": 1}",\n'
                ),
                [
                    (
                        "a.csv line 2: attributes: not usable JSON: the key 'rack' appears twice "
                        "in one object"
                    ),
                    (
                        "a.csv line 3: attributes: not usable JSON: the key 'y' appears twice "
                        "in one object"
                    ),
                    "a.csv line 4: attributes.rack: the attribute 'rack' is in another column too",
                ],
            ),
            (
                (
                    "id,name,type,environment,attributes.rack,attributes\n"
                    'c,c,server,prod,r7,"{""rack"": 1}"\n'
                ),
                ["a.csv line 2: attributes: the attribute 'rack' is in another column too"],
            ),
            (
                "id,name,type,environment,attributes.x, attributes.x\n",
                ["a.csv line 1: column 'attributes.x' appears twice"],
            ),
            (
                "id,name,type,environment,last_updated\na,a,server,prod,2026\n",
                [
                    (
                        "a.csv line 2 ('a'): last_updated: must be text with an RFC 3339 time, such "
                        'as "2026-01-31T12:00:00Z"'
                    )
                ],
            ),
            (
                'id,name,type,environment\na,"a,server,prod\n',
                ["a.csv: not valid CSV after the lines read so far: unexpected end of data"],
            ),
        ],
    )
    def test_every_fault_is_named_with_its_line(
        self, reader: Reader, text: str, faults: list[str]
    ) -> None:
        with pytest.raises(InvalidImport) as caught:
            reader.csv(text)

        assert _faults(caught) == faults

    def test_relations_have_a_file_of_their_own(self, reader: Reader) -> None:
        source = Source(reader.file("r.csv", "to,from,type\nb,a,uses\n"), relations=True)

        (placed,) = read_sources([source]).relations

        assert (placed.place, placed.relation.origin, placed.relation.target) == (
            "r.csv line 2",
            "a",
            "b",
        )


class TestNetBox:
    def test_a_device_becomes_an_asset(self, reader: Reader) -> None:
        device = _device(
            role={"slug": "db"}, tenant={"slug": "finance"}, site={"slug": "fra1"}, rack=None
        )

        (asset,) = reader.netbox({"count": 1, "next": None, "results": [device]}).assets

        assert asset.model_dump(mode="json", exclude_unset=True) == {
            "tenant": "default",
            "id": "netbox-device-12",
            "name": "web1",
            "type": "database",
            "environment": "prod",
            "status": "active",
            "ip_address": "10.0.0.5",
            "owner": "finance",
            "attributes": {
                "netbox": {
                    "kind": "device",
                    "id": 12,
                    "role": "db",
                    "site": "fra1",
                    "tenant": "finance",
                    "status": "active",
                }
            },
        }

    def test_a_virtual_machine_runs_on_its_device(self, reader: Reader) -> None:
        device = _device(custom_fields={"environment": "dev", "asset_id": "metal1"})
        machine = {
            "id": 12,
            "name": "vm1",
            "vcpus": 2,
            "status": "offline",
            "device": {"id": 12},
            "tags": [{"slug": "env-stage"}],
        }

        content = reader.netbox({"devices": [device], "virtual_machines": {"results": [machine]}})

        assert [asset.id for asset in content.assets] == ["metal1", "netbox-vm-12"]
        (relation,) = [placed.relation for placed in content.relations]
        assert (relation.origin, relation.target, relation.type) == (
            "netbox-vm-12",
            "metal1",
            "runs_on",
        )

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ("active", "active"),
            ("planned", "inactive"),
            ("offline", "inactive"),
            ("decommissioning", "inactive"),
            ("failed", "maintenance"),
        ],
    )
    def test_its_statuses_are_ours(self, reader: Reader, status: str, expected: str) -> None:
        (asset,) = reader.netbox([_device(status={"value": status})]).assets

        assert asset.status == expected

    @pytest.mark.parametrize(
        ("changes", "rules", "expected"),
        [
            ({}, {}, "prod"),
            ({"custom_fields": {"environment": {"value": "dev", "label": "D"}}}, {}, "dev"),
            ({"custom_fields": {}, "tags": [{"slug": "environment-staging"}]}, {}, "staging"),
            ({"custom_fields": None}, {"environment": Environment.DEV}, "dev"),
        ],
    )
    def test_the_environment_is_a_custom_field_or_a_tag_or_given(
        self, reader: Reader, changes: dict[str, Any], rules: dict[str, Any], expected: str
    ) -> None:
        (asset,) = reader.netbox([_device(**changes)], **rules).assets

        assert asset.environment == expected

    def test_types_of_roles_can_be_given(self, reader: Reader) -> None:
        (asset,) = reader.netbox([_device()], role_types={"router": AssetType.APPLICATION}).assets

        assert asset.type == "application"

    @pytest.mark.parametrize(
        ("document", "fault"),
        [
            ({"hosts": []}, "nb.json: expected a list, an object with results, or one"),
            (
                {"count": 90, "next": "https://x/?offset=50", "results": []},
                "nb.json: one page of 0 records out of 90, which is not the whole export",
            ),
            ([{"id": 1}], "nb.json record 1: neither a device (device_type) nor a virtual"),
            ({"devices": [3]}, "nb.json devices 1: expected an object, not int"),
            ([_device(id="12")], "nb.json record 1 ('web1'): id: must be a number"),
            ([_device(id=True)], "nb.json record 1 ('web1'): id: must be a number"),
            (
                [_device(name=False)],
                "nb.json record 1 ('netbox-device-12'): name: Input should be a",
            ),
            ([_device(name=5)], "nb.json record 1 ('netbox-device-12'): name: Input should be a"),
            ([_device(status=True)], "nb.json record 1 ('web1'): status: expected text or an obj"),
            ([_device(status=0)], "nb.json record 1 ('web1'): status: expected text or an object"),
            ([_device(tenant=False)], "nb.json record 1 ('web1'): tenant: expected text or an obj"),
            ([_device(custom_fields=False)], "nb.json record 1 ('web1'): custom_fields: must be"),
            ([_device(custom_fields={"asset_id": 7})], "nb.json record 1 ('web1'): asset_id: exp"),
            ([_device(primary_ip=False)], "nb.json record 1 ('web1'): primary_ip: expected text"),
            (
                [_device(primary_ip={"address": True})],
                "nb.json record 1 ('web1'): primary_ip: expected text or",
            ),
            (
                [_device(custom_fields={}, tags=5)],
                "nb.json record 1 ('web1'): tags: must be a list",
            ),
            (
                [_device(custom_fields={}, tags="env-prod")],
                "nb.json record 1 ('web1'): tags: must be a list",
            ),
            *(
                (
                    {"virtual_machines": [_device(device={"id": value})]},
                    "nb.json virtual_machines 1 ('web1'): device.id: must be a number",
                )
                for value in (True, "12", None)
            ),
            (
                {"virtual_machines": [_device(device=12)]},
                "nb.json virtual_machines 1 ('web1'): device: must be an object with a number",
            ),
            ([_device(status="lost")], "nb.json record 1 ('web1'): status: 'lost' is unknown"),
            ([_device(custom_fields=[1])], "nb.json record 1 ('web1'): custom_fields: must be"),
            ([_device(site=4)], "nb.json record 1 ('web1'): site: expected text or an object"),
            ([_device(primary_ip=4)], "nb.json record 1 ('web1'): primary_ip: expected text or"),
            (
                [_device(primary_ip={"address": "x/24"})],
                "nb.json record 1 ('netbox-device-12'): ip_address: value is not a valid",
            ),
            (
                [_device(custom_fields={"environment": "moon"})],
                "nb.json record 1 ('web1'): custom_fields.environment: 'moon' is unknown",
            ),
            (
                [_device(custom_fields={"environment": "dev", "asset_type": "router"})],
                "nb.json record 1 ('netbox-device-12'): type: Input should be 'server'",
            ),
            (
                [_device(custom_fields={}, tags=["env-prod", "env-dev"])],
                "nb.json record 1 ('web1'): tags: name several environments: dev, prod",
            ),
            (
                [_device(custom_fields={}, tags=["env-moon"])],
                "nb.json record 1 ('web1'): tags: 'env-moon' names no environment",
            ),
            (
                [_device(custom_fields={})],
                "nb.json record 1 ('web1'): environment: there is neither a custom field",
            ),
            (
                [_device(name=None)],
                "nb.json record 1 ('netbox-device-12'): name: Input should be a valid string",
            ),
        ],
    )
    def test_what_cannot_be_taken_over_is_named(
        self, reader: Reader, document: object, fault: str
    ) -> None:
        with pytest.raises(InvalidImport) as caught:
            reader.netbox(document)

        assert _faults(caught)[0].startswith(fault)


class TestFiles:
    def test_a_name_that_tells_no_format_asks_for_it(self, reader: Reader) -> None:
        with pytest.raises(InvalidImport, match="the name does not tell the format; say --format"):
            read_sources([Source(reader.file("hosts.txt", ""))])

    def test_a_file_that_is_not_there_is_a_fault(self) -> None:
        with pytest.raises(InvalidImport, match=r"no\.csv: cannot be read: No such file"):
            read_sources([Source("no.csv")])

    def test_other_encodings_are_refused(self, reader: Reader) -> None:
        with pytest.raises(InvalidImport, match=r"a\.csv: not UTF-8: byte 1 is wrong"):
            read_sources([Source(reader.file("a.csv", b"M\xfcnchen"))])

    def test_a_file_that_is_too_large_says_how_large_it_may_be(
        self, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "MOST_BYTES", 1024 * 1024)

        with pytest.raises(InvalidImport, match="larger than 1 MiB, the most for one file"):
            read_sources([Source(reader.file("a.csv", b"x" * (1024 * 1024 + 1)))])

    def test_too_many_records_are_refused(
        self, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "MOST_RECORDS", 2)

        with pytest.raises(InvalidImport, match="3 records are too many for one import; at most 2"):
            reader.json([_row(id=name) for name in "abc"])


def test_a_dry_run_shows_each_field_before_and_after() -> None:
    report = ImportReport(
        dry_run=True,
        changed=True,
        request_id="import-1",
        assets=Counts(updated=1, unchanged=2),
        relations=Counts(created=1),
        differences=(
            AssetDifference(
                action="updated",
                tenant="default",
                id="a",
                before={"owner": None},
                after={"owner": "ops"},
            ),
        ),
        new_relations=({"tenant": "default", "from": "a", "to": "b", "type": "uses"},),
    )

    assert report_text(report).splitlines() == [
        "updated: a (tenant default)",
        '  owner: null -> "ops"',
        "created: a uses b (tenant default)",
        (
            "assets: 0 created, 1 updated, 2 unchanged; relations: 1 created, 0 unchanged "
            "(dry run: nothing was written)"
        ),
    ]
