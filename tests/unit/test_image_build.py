"""What `image/build` does in Python, and what can be said of its files without building: tables, locks, keys."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecall_build import boot_texts, disk, lock, root
from edgecall_image import layout
from edgecall_image.selector import TEXT
from tests.support.cards import MIB, entry, sector, write_card
from tests.support.fat_images import write_fat

IMAGE = Path(__file__).parents[2] / "image"
TARGETS = sorted(path.name for path in (IMAGE / "target").iterdir())


# -- Partition table ---------------------------------------------------------------------------------------------------


def test_the_table_of_genimage_is_mended_to_what_the_firmware_follows(tmp_path: Path) -> None:
    write_card(tmp_path / "disk", link=0x0F)
    with (tmp_path / "disk").open("r+b") as found:
        assert disk.mend(found) == 3  # the extended partition, and two links
        assert disk.mend(found) == 0
        table = disk.read(found)
    disk.check(table)
    assert [part.number for part in table.partitions] == [1, 2, 3, 4, 5, 6, 7]
    assert [part.start // MIB for part in table.partitions] == [4, 68, 196, 324, 325, 1862, 3399]
    assert table.label == layout.LABEL_ID


@pytest.mark.parametrize(("changed", "words"), [
    ({"link": 0x0F}, "partition 4 is of type 0x0f, not 0x05"),
    ({"label": 1}, "the label id is 00000001, not edca1101"),
    ({"root_b": 1024}, "partition 6 has 1073741824 bytes, not 1536 MiB"),
    ({"boot_b_at": 100}, "partitions 2 and 3 overlap"),
])
def test_a_table_that_is_not_the_layouts_is_told_by_what_differs(
    changed: dict[str, int], words: str, tmp_path: Path
) -> None:
    write_card(tmp_path / "disk", **changed)
    with (tmp_path / "disk").open("rb") as found:
        table = disk.read(found)
    with pytest.raises(disk.WrongTable, match=words):
        disk.check(table)


@given(st.binary(max_size=2048))
def test_what_is_no_table_is_never_taken_for_one(content: bytes) -> None:
    try:
        disk.check(disk.read(io.BytesIO(content)))
    except disk.WrongTable:
        return
    pytest.fail("random bytes passed as the table of the layout")


def test_a_chain_that_leads_in_a_circle_ends(tmp_path: Path) -> None:
    write_card(tmp_path / "disk")
    with (tmp_path / "disk").open("r+b") as found:
        found.seek(1861 * MIB)
        found.write(sector(entry(0x83, 1, 1536), entry(5, 1537, 1537)))  # from the second link to itself
        with pytest.raises(disk.WrongTable, match="more than 16 links"):
            disk.read(found)


def test_the_layout_file_has_the_sizes_that_are_checked() -> None:
    text = re.sub(r"#.*", "", (IMAGE / "layout/mbr.cfg").read_text())
    parts = re.findall(r"partition (\w+) \{(.*?)\}", text, re.DOTALL)
    assert [name for name, _ in parts] == ["selector", "boot_a", "boot_b", "root_a", "root_b", "data"]
    sizes = [int(size) for _, body in parts for size in re.findall(r"size = (\d+)M", body)]
    assert sizes[:5] == list(disk.SIZES_MIB.values())
    assert f"disk-signature = {layout.LABEL_ID:#x}" in text
    slot_mib = re.search(r"SLOT_MIB=(\d+)", (IMAGE / "build").read_text())
    assert slot_mib is not None
    assert int(slot_mib[1]) == disk.SIZES_MIB[layout.ROOT_PARTITION["A"]]


# -- Targets -----------------------------------------------------------------------------------------------------------


def shell(script: str, *arguments: object) -> str:
    words = ["bash", "-euc", script, "bash", *map(str, arguments)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def packages(name: str) -> list[str]:
    lines = (IMAGE / "packages" / f"{name}.list").read_text().splitlines()
    return [word for line in lines if (word := line.split("#")[0].strip())]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_names_what_there_is(target: str) -> None:
    told = shell('. "$1"; echo "$architecture $compatible $kernel $compress $compressed_limit"; echo "${lists[*]}"',
                 IMAGE / "target" / target).splitlines()
    architecture, compatible, kernel, compress, limit = told[0].split()
    assert architecture in {"amd64", "arm64"}
    assert re.fullmatch(rf"edgecall-[a-z]+-{architecture}", compatible)
    assert kernel in {"none", "debian", "vendor"}
    assert (compress == "yes") == (int(limit) > 0)
    names = [name for chosen in told[1].split() for name in packages(chosen)]
    assert len(names) == len(set(names)), "a package stands in two lists"
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in names)
    assert ("linux-image-rpi-v8" in names) == (kernel == "vendor")
    assert not {"openssh-server", "dropbear-bin", "sudo"} & set(names)


def test_an_image_holds_what_the_daemons_package_asks_for() -> None:
    """Its recommended packages too, which an image's apt leaves out; what every Debian has need not be listed."""
    control = re.sub(r"\n ", " ", (IMAGE / "deb/control.in").read_text())
    asked = re.findall(r"^(?:Depends|Recommends): (.*)$", control, re.MULTILINE)
    present = {"init-system-helpers", "libc6", "libgcc-s1", "libstdc++6", "passwd", "zlib1g"}
    listed = set(packages("common")) | present
    missing = [
        one for line in asked for one in line.split(",")
        if not {re.split(r"[ (]", word.strip())[0] for word in one.split("|")} & listed
    ]
    assert len(asked) == 2
    assert missing == []


def test_of_a_later_suite_only_rauc_is_taken_in_the_version_that_was_looked_at() -> None:
    text = (IMAGE / "apt/rauc.pref").read_text()
    assert "Package: *\nPin: release n=forky\nPin-Priority: -1\n" in text
    assert "Package: rauc rauc-service\nPin: version 1.15.2-*\n" in text
    for path in (IMAGE / "lock").glob("*.lock"):
        versions = {package.name: package.version for package in lock.read(path)}
        assert versions["rauc"].startswith("1.15.2-")
        assert versions["rauc-service"] == versions["rauc"]


def test_targets_have_a_name_of_their_own_for_rauc() -> None:
    names = [shell('. "$1"; echo "$compatible"', IMAGE / "target" / target) for target in TARGETS]
    assert len(set(names)) == len(TARGETS) == 3


# -- Boot texts --------------------------------------------------------------------------------------------------------

COMMAND_LINE = (IMAGE / "boot/cmdline.txt").read_text()
FIRMWARE = (IMAGE / "boot/config.txt").read_text()
EXAMPLE = (IMAGE / "edgecall.toml.example").read_bytes()


def test_the_boot_texts_are_what_a_device_is_started_by() -> None:
    filled_in = COMMAND_LINE.replace(" @CONSOLE@", "")  # as a build does
    assert boot_texts.command_line_faults(filled_in) == boot_texts.firmware_faults(FIRMWARE) == []
    assert boot_texts.example_faults(EXAMPLE) == []
    assert boot_texts.command_line_faults(COMMAND_LINE) == ["cmdline.txt has @CONSOLE@, which nobody fills in"]


LINE = "root=PARTUUID=edca1101-@ROOT@ rootfstype=ext4 ro init=/usr/lib/edgecall-image/init rauc.slot=@SLOT@ panic=10\n"


@pytest.mark.parametrize(("text", "fault"), [
    ("hello world\n", "no rauc.slot=@SLOT@"),
    (LINE.replace("@ROOT@", "05"), "no root=PARTUUID=edca1101-@ROOT@"),
    (LINE.replace("init=/usr", "init=/"), "no init=/usr/lib/edgecall-image/init"),
    (LINE.replace(" ro ", " rw "), "no ro"),
    (LINE.replace("=10", "=0"), "no panic=SECONDS"),
    (LINE.rstrip(), "not one line"),
    (f"{LINE}quiet\n", "not one line"),
    ("", "not one line"),
])
def test_a_command_line_is_refused_with_what_it_lacks(text: str, fault: str) -> None:
    assert boot_texts.command_line_faults(LINE) == []
    assert any(fault in one for one in boot_texts.command_line_faults(text))


@pytest.mark.parametrize(("line", "fault"), [
    ("arm_64bit = nonsense ((", "is no setting"),
    ("dtoverlay=" + "x" * 89, "a line of 99 characters, and 98 are read"),
    ("[pi4", "is no setting"),
])
def test_a_setting_is_refused_that_firmware_does_not_read(line: str, fault: str) -> None:
    told, = boot_texts.firmware_faults(f"{FIRMWARE}\n# {line}\n{line}\n")
    assert fault in told
    assert boot_texts.firmware_faults(FIRMWARE.replace("arm_64bit=1\n", "")) == ["config.txt has no arm_64bit=1"]


@pytest.mark.parametrize(("content", "fault"), [
    (b"no = TOML = here", "is not TOML"), (b"# words alone\n", "asks for nothing"), (b"\xff", "is not UTF-8 text"),
    (b'[system]\nhostname = "Front Door"\n', "hostname"), (b'[system]\ntime_zone = "Europe/Nowhere"\n', "time_zone"),
])
def test_an_example_is_refused_that_first_boot_would_not_take(content: bytes, fault: str) -> None:
    told, = boot_texts.example_faults(content)
    assert told.startswith("edgecall.toml.example: ")
    assert fault in told


NAMED = b"root=PARTUUID=edca1101-05 rauc.slot=A quiet\n"


@pytest.mark.parametrize(("selector", "boot", "fault"), [
    ({}, {}, ""),
    ({"autoboot.txt": TEXT["B"]}, {}, "has slot B start"),
    ({"autoboot.txt": b"[all]\nboot_partition=2\n"}, {}, "autoboot.txt on"),
    ({"autoboot.txt": None}, {}, "autoboot.txt is missing"),
    ({"edgecall.toml.example": b"[system]\n"}, {}, "has another edgecall.toml.example"),
    ({"edgecall.toml.example": None}, {}, "selector.vfat holds no edgecall.toml.example"),
    ({}, {"cmdline.txt": NAMED.replace(b"05", b"06")}, "without root=PARTUUID=edca1101-05"),
    ({}, {"cmdline.txt": NAMED.replace(b"=A", b"=B")}, "without rauc.slot=A"),
    ({}, {"cmdline.txt": None}, "boot_a.vfat holds no cmdline.txt"),
])
def test_what_was_laid_into_the_file_systems_is_read_back(
    selector: dict[str, bytes | None], boot: dict[str, bytes | None], fault: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def written(name: str, files: dict[str, bytes | None]) -> None:
        write_fat(tmp_path / name, {name: content for name, content in files.items() if content is not None})

    written("selector.vfat", {"autoboot.txt": TEXT["A"], "edgecall.toml.example": EXAMPLE, **selector})
    written("boot_a.vfat", {"config.txt": FIRMWARE.encode(), "cmdline.txt": NAMED, **boot})
    words = ["--example", str(IMAGE / "edgecall.toml.example"), "--made", str(tmp_path)]
    assert boot_texts.main(words) == (1 if fault else 0)
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["nonsense"], "there is no target 'nonsense'"),
    (["uml-amd64", "--version", "1.2"], "'1.2' is no version of semantic versioning"),
    (["uml-amd64", "--min-version", "01.2.3"], "'01.2.3' is no version"),
    (["uml-amd64", "--version", "1.0.0"], "whose"),
    (["uml-amd64", "--frobnicate"], "there is no option '--frobnicate'"),
    (["uml-amd64", "--out"], "--out wants a value"),
    (["uml-amd64", "--test-keys", "--snapshot", "yesterday"], "'yesterday' is no date"),
    (["uml-amd64", "--test-keys", "--snapshot", "20261115T000000Z"], "--snapshot needs --mirror"),
    (["uml-amd64", "--out", ""], "--out wants a value"),
    (["--layout", "pi"], "the target comes first, before --layout"),
    (["uml-amd64", "--test-keys", "--debug-ssh", "/dev/null"], "no public key"),
    (["uml-amd64", "--test-keys", "--debug-ssh", "/nowhere/x.pub"], "there is no file /nowhere/x.pub that can be read"),
    (["pi", "--test-keys", "--vendor-keyring", "/nowhere/x.gpg"], "vendor's archive cannot be read: /nowhere/x.gpg"),
    (["pi", "--test-keys", "--vendor-keyring", "/etc"], "the vendor's archive cannot be read: /etc"),
    (["uml-amd64", "--test-keys", "--vendor-keyring", __file__], "uml-amd64 takes nothing from the vendor's archive"),
    (["virt-arm64", "--test-keys", "--vendor-mirror", "http://x/debian"], "takes nothing from the vendor's archive"),
    (["uml-amd64", "--test-keys", "--relock", "--debug-ssh", "key.pub"], "a lock is of what is released"),
    (["uml-amd64", "--test-keys", "--deb", "/nowhere/x.deb"], "there is no file /nowhere/x.deb"),
])
def test_what_cannot_be_built_is_told_before_anything_is_made(arguments: list[str], words: str, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([IMAGE / "build", *arguments], check=False, cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.startswith("\nbuild: "), "not what a tool says to it"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["pi", "--help"], 0), (["pi", "-h"], 0)])
def test_the_words_of_build_are_told_by_itself(words: list[str], code: int) -> None:
    done = subprocess.run([IMAGE / "build", *words], check=False, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.startswith("Builds the image of a target")


def test_who_is_not_root_is_told_the_whole_command(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    words = [str(IMAGE / "build"), "uml-amd64", "--test-keys", "--out", "a folder"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=tmp_path,
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert f"Run: sudo {IMAGE}/build uml-amd64 --test-keys --out a\\ folder\n" in done.stderr


@pytest.mark.parametrize(("mirror", "keyring", "words"), [
    ("", "", "pi needs the archive of Raspberry Pi: name it with --vendor-mirror"),
    ("http://127.0.0.1:9/debian", "", "the keys of the vendor's archive cannot be read"),
    ("http://127.0.0.1:9/debian", __file__, "cannot be reached at http://127.0.0.1:9/debian, and pi cannot be built"),
])
def test_pi_ends_with_one_clear_line_where_its_vendors_archive_is_out_of_reach(
    mirror: str, keyring: str, words: str, tmp_path: Path
) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), "EDGECALL_VENDOR_MIRROR": mirror,
                   "EDGECALL_VENDOR_KEYRING": keyring}
    done = subprocess.run([IMAGE / "base", "--check", "pi"], check=False, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


# -- Root --------------------------------------------------------------------------------------------------------------

AUTHORITY = b"-----BEGIN CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIG\n"


@pytest.fixture
def root_folder(tmp_path: Path) -> Path:
    """The root of an image that may go onto a card."""
    files = {
        "etc/shadow": "root:*:20309:::::1:\nedgecall:!*:20309::::::\n", "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/machine-id": "", "etc/rauc/ca.pem": AUTHORITY.decode(), "usr/bin/ssh": "", "root/.profile": "",
        "usr/lib/edgecall-image/init": "#!/bin/sh\n", "usr/lib/systemd/system/rauc.service": "ExecStart=rauc service\n",
        "etc/systemd/system/multi-user.target.wants/edgecall.service": "",
    }
    for name, text in files.items():
        put(tmp_path / "root", name, text)
    (tmp_path / "root/usr/lib/edgecall-image/init").chmod(0o755)
    return tmp_path / "root"


def put(folder: Path, name: str, text: str | None) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    if text is not None:
        (folder / name).write_text(text)


@pytest.mark.parametrize(("name", "text", "fault"), [
    ("etc/shadow", "root:$y$j9T$abc:20309:::::1:\n", "these have a password, or need none: root"),
    ("etc/shadow", "root:*:1::::::\nguest::20309:::::1:\n", "these have a password, or need none: guest"),
    ("etc/passwd", "root::0:0:root:/root:/bin/sh\n", "these have a password, or need none: root"),
    ("usr/sbin/sshd", "", "there is a server of SSH: usr/sbin/sshd"),
    ("usr/bin/dropbearmulti", "", "there is a server of SSH: usr/bin/dropbearmulti"),
    ("usr/local/bin/sshd-2", "", "there is a server of SSH: usr/local/bin/sshd-2"),
    ("usr/lib/systemd/system/rauc-mark-good.service", "", "marks a slot good: usr/lib/systemd/system/rauc-"),
    ("etc/systemd/system/well.service", "ExecStart=rauc status mark-good\n", "marks a slot good: etc/systemd"),
    ("usr/lib/edgecall-image/init", None, "there is no usr/lib/edgecall-image/init that can be run"),
    ("usr/lib/edgecall-image/init", "no mode of a program", "there is no usr/lib/edgecall-image/init that can be run"),
    ("etc/systemd/system/multi-user.target.wants/edgecall.service", None, "edgecall.service is not enabled"),
    ("etc/rauc/ca.pem", None, "etc/rauc/ca.pem is not that of the keys"),
    ("etc/rauc/ca.pem", AUTHORITY.decode() * 2, "etc/rauc/ca.pem is not that of the keys"),
    ("etc/machine-id", "5a1e\n", "etc/machine-id names a machine"),
    ("etc/ssl/private/any", "", "there is a private key: etc/ssl/private/any"),
    ("etc/rauc/release.key", KEY, "there is a private key: etc/rauc/release.key"),
    ("root/.ssh/id_ed25519", KEY.replace("PRI", "OPENSSH PRI"), "there is a private key: root/.ssh/id_ed25519"),
    ("etc/dropbear/dropbear_ed25519_host_key", "", "there is a private key: etc/dropbear/dropbear_ed25519_host_key"),
])
def test_a_root_is_refused_with_what_no_image_may_hold(
    name: str, text: str | None, fault: str, root_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root_folder.parent / "ca.pem").write_bytes(AUTHORITY)
    words = ["folder", str(root_folder), "--authority", str(root_folder.parent / "ca.pem")]
    assert root.main(words) == 0
    assert capsys.readouterr().err == ""
    put(root_folder, name, text)
    assert root.main(words) == 1
    told, = capsys.readouterr().err.splitlines()
    assert told.startswith("root: ")
    assert fault in told


def test_every_fault_of_a_root_is_told_at_once(root_folder: Path) -> None:
    put(root_folder, "etc/machine-id", "5a1e\n")
    put(root_folder, "usr/sbin/sshd", "")
    assert len(root.faults(root_folder, AUTHORITY)) == 2


def test_with_ssh_there_is_a_server_and_nothing_else_that_no_image_may_hold(root_folder: Path) -> None:
    put(root_folder, "usr/sbin/dropbear", "")
    put(root_folder, "root/.ssh/authorized_keys", "ssh-ed25519 AAAA desk\n")
    assert root.faults(root_folder, AUTHORITY, with_ssh=True) == []
    put(root_folder, "root/.ssh/id_ed25519", KEY)
    assert root.faults(root_folder, AUTHORITY, with_ssh=True) == ["there is a private key: root/.ssh/id_ed25519"]


def test_a_link_is_not_followed_out_of_a_root(root_folder: Path, tmp_path: Path) -> None:
    """It leads elsewhere on a device."""
    put(tmp_path / "outside", "sshd", KEY)
    (root_folder / "usr/local").mkdir()
    (root_folder / "usr/local/bin").symlink_to(tmp_path / "outside")
    (root_folder / "etc/ssl").mkdir()
    (root_folder / "etc/ssl/some.pem").symlink_to(tmp_path / "outside/sshd")
    assert root.faults(root_folder, AUTHORITY) == []


def test_a_root_of_more_than_is_allowed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "files", "big", "x" * (5 << 20))
    made, environ = tmp_path / "root.ext4", {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tmp_path / "files", made, "32M"], check=True,
                   env=environ)
    told = subprocess.run(["dumpe2fs", "-h", made], check=True, env=environ, capture_output=True, text=True).stdout
    counts = dict(re.findall(r"^(Block count|Free blocks): +(\d+)$", told, re.MULTILINE))
    used = (int(counts["Block count"]) - int(counts["Free blocks"])) // 256
    assert 5 <= used < 32
    assert root.main(["size", str(made)]) == 0
    assert capsys.readouterr().out == f"{used}\n"
    assert root.main(["size", str(made), "--limit", str(used)]) == 0
    assert root.main(["size", str(made), "--limit", str(used - 1)]) == 1
    assert f"it takes {used} MiB, and {used - 1} are allowed" in capsys.readouterr().err


def test_what_is_no_file_system_has_no_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing").write_bytes(bytes(4096))
    assert root.main(["size", str(tmp_path / "nothing")]) == 1
    assert "holds no ext4 file system" in capsys.readouterr().err


# -- Keys --------------------------------------------------------------------------------------------------------------


def keys(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IMAGE / "keys", *map(str, arguments)], check=False, capture_output=True, text=True)


def test_a_release_takes_its_own_keys_and_no_throw_away_ones(tmp_path: Path) -> None:
    real, thrown = tmp_path / "real", tmp_path / "thrown"
    assert keys(real).returncode == keys("--test", thrown).returncode == 0
    assert keys("--check-release", real).returncode == 0
    refused = keys("--check-release", thrown)
    assert refused.returncode == 1
    assert "throw-away authority" in refused.stderr
    assert keys("--renew", thrown).returncode == 0
    assert keys("--check-release", thrown).returncode == 1, "a new certificate does not make it another authority"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("left", ["ca.key", "ca.pem", "release.key", "release.pem"])
def test_nothing_that_is_there_is_overwritten(left: str, tmp_path: Path) -> None:
    """Whichever of the four it is: the authority of a release may lie in a drawer."""
    assert keys(tmp_path).returncode == 0
    assert set(content(tmp_path)) == {"ca.key", "ca.pem", "release.key", "release.pem"}
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    for path in tmp_path.iterdir():
        if path.name != left:
            path.unlink()
    before = content(tmp_path)
    for words in ([tmp_path], ["--test", tmp_path]):
        refused = keys(*words)
        assert refused.returncode == 1
        assert f"{tmp_path} has a {left}" in refused.stderr
        assert content(tmp_path) == before


def test_what_fails_leaves_keys_as_they_were(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    keys(ours)
    keys(others)
    (ours / "ca.key").write_bytes((others / "ca.key").read_bytes())
    before = content(ours)
    refused = keys("--renew", ours)
    assert refused.returncode == 1
    assert "keys: openssl x509: " in refused.stderr
    assert content(ours) == before


def test_keys_that_cannot_be_made_leave_nothing(tmp_path: Path) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "keys"
    programs.mkdir()
    (programs / "openssl").write_text('#!/bin/sh\n[ "$1" != x509 ] || exit 1\nexec /usr/bin/openssl "$@"\n')
    (programs / "openssl").chmod(0o755)
    done = subprocess.run([IMAGE / "keys", folder], check=False, capture_output=True, env={
        "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("name", "words"), [
    ("ca.pem", "ca.pem does not hold certificates"), ("release.pem", "release.pem is no certificate"),
    ("release.key", "release.key is no key"),
])
@pytest.mark.parametrize("text", ["", "nothing\n", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_what_is_no_key_and_no_certificate_is_told_by_its_own_name(
    text: str, name: str, words: str, tmp_path: Path
) -> None:
    keys(tmp_path)
    (tmp_path / name).write_text(text)
    refused = keys("--check-release", tmp_path)
    assert refused.returncode == 1
    assert words in refused.stderr
    if name == "ca.pem":
        before = content(tmp_path)
        assert words in keys("--renew", tmp_path).stderr
        assert content(tmp_path) == before


def test_each_certificate_of_an_authority_has_to_be_one(tmp_path: Path) -> None:
    keys(tmp_path)
    whole = (tmp_path / "ca.pem").read_text()
    (tmp_path / "ca.pem").write_text(whole + whole)
    assert keys("--check-release", tmp_path).returncode == 0
    (tmp_path / "ca.pem").write_text(whole + (tmp_path / "release.key").read_text())
    assert "ca.pem does not hold certificates in PEM, or holds something" in keys("--check-release", tmp_path).stderr


def test_a_release_certificate_is_renewed_by_the_same_authority(tmp_path: Path) -> None:
    keys(tmp_path)
    authority, before = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "release.pem").read_bytes()
    assert keys("--renew", tmp_path).returncode == 0
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert (tmp_path / "release.pem").read_bytes() != before
    assert keys("--check-release", tmp_path).returncode == 0
    (tmp_path / "ca.key").unlink()
    assert keys("--check-release", tmp_path).returncode == 0, "a release does not need the authority's key"
    refused = keys("--renew", tmp_path)
    assert refused.returncode == 1
    assert "no ca.key" in refused.stderr


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    keys(ours)
    keys(others)
    (ours / "release.key").write_bytes((others / "release.key").read_bytes())
    assert "is not the key of release.pem" in keys("--check-release", ours).stderr
    (ours / "release.pem").write_bytes((others / "release.pem").read_bytes())
    assert "is not from" in keys("--check-release", ours).stderr
    (ours / "release.pem").unlink()
    assert "has no release.pem" in keys("--check-release", ours).stderr


# -- Locks -------------------------------------------------------------------------------------------------------------

REVIEWED = """\
# Debian's
base-files amd64 13.8 base-files 13.8
rauc amd64 1.15.2-1 rauc 1.15.2-1
zlib1g amd64 1:1.3-1 zlib 1:1.3-1
"""


def test_a_lock_tells_what_came_what_went_and_what_has_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text(REVIEWED)
    (tmp_path / "found").write_text(REVIEWED.replace("1.15.2-1", "1.16-1").replace("base-files", "acl"))
    assert lock.main([str(tmp_path / "lock"), str(tmp_path / "lock")]) == 0
    assert capsys.readouterr().out == ""
    assert lock.main([str(tmp_path / "found"), str(tmp_path / "lock")]) == 3
    assert capsys.readouterr().out.splitlines() == [
        "acl:amd64 was not there -> 13.8", "base-files:amd64 13.8 -> is gone", "rauc:amd64 1.15.2-1 -> 1.16-1"]


def test_a_lock_that_is_written_is_equal_to_what_was_found(tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.write_text("\n".join(reversed(REVIEWED.splitlines())))
    assert lock.main([str(found), str(tmp_path / "lock"), "--write", "Debian's"]) == 0
    assert (tmp_path / "lock").read_text() == REVIEWED


@pytest.mark.parametrize(("text", "words"), [
    ("rauc amd64 1.15\n", "line 1"), ("# nothing\n", "names no package"), (None, "No such"),
])
def test_what_is_no_lock_is_told_by_file_and_line(
    text: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "lock").write_text(text)
    assert lock.main([str(tmp_path / "lock"), str(tmp_path / "lock")]) == 1
    told = capsys.readouterr().err
    assert words in told
    assert str(tmp_path / "lock") in told
