"""What `image/build` does with the options of a release and of mirrors, up to the tools that it runs."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.cards import write_card

IMAGE: Final = Path(__file__).parents[2] / "image"
PROGRAMS: Final = {
    "id": "echo 0",
    "df": "echo Avail; echo 99999M",
    "apt-get": '[ "$1" = indextargets ] && cat "$ASKED/../mirrors"',
    "apt-config": '[ "$*" = "dump Acquire" ] && cat "$ASKED/../acquire"',
    "mmdebstrap": """
printf '%s\\n' "$@" >"$ASKED/$$"
[ -e "$ASKED/../reachable" ] || { echo 'E: Unable to connect to the mirror'; exit 1; }
for word; do
  case $word in */base.tar) : >"$word"; : >"${word%/*}/packages" ;; */new-*/root) mkdir "$word" ;; esac
done""",
}
"""Root on a machine with much room, whose apt has what the test says, and where mmdebstrap writes down what it is asked
for, and finds a mirror or none."""
ACQUIRE: Final = """\
Acquire "";
Acquire::http "";
Acquire::IndexTargets::deb::Packages::Optional "0";
Acquire::Languages:: "none";
"""
"""Of apt's own settings, some that say nothing of the way to a mirror."""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "asked", "home", "work"):
            (folder / name).mkdir()
        for name, text in PROGRAMS.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / "bin" / name).chmod(0o755)
        (folder / "some.deb").touch()
        (folder / "mirrors").write_text("http://mirror.here/debian/\nhttp://mirror.here/debian/\n")
        (folder / "acquire").write_text(ACQUIRE)

    def start(self, program: str | Path, *words: object, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [IMAGE / program, *map(str, words)], text=True, cwd=self.folder / "work", stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "HOME": str(self.folder / "home"),
                 "ASKED": str(self.folder / "asked"), "SOURCE_DATE_EPOCH": "1764460800"} | environ)

    def run(self, program: str | Path, *words: object, **environ: str) -> subprocess.CompletedProcess[str]:
        process = self.start(program, *words, **environ)
        out, said = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, said)

    def build(self, *words: object) -> subprocess.CompletedProcess[str]:
        return self.run("build", "uml-amd64", "--deb", self.folder / "some.deb", *words)

    def asked(self, for_what: str = "/base.tar") -> list[list[str]]:
        """What mmdebstrap was asked for, each time that it was to make this."""
        times = [path.read_text().splitlines() for path in (self.folder / "asked").iterdir()]
        return [words for words in times if any(word.endswith(for_what) for word in words)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of a release."""
    return made_keys(tmp_path_factory.mktemp("keys") / "real")


def made_keys(folder: Path, *words: str) -> Path:
    subprocess.run([IMAGE / "keys", *words, folder], check=True, capture_output=True)
    return folder


# -- Mirrors -----------------------------------------------------------------------------------------------------------


def sources(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("deb ")]


@pytest.mark.parametrize("mirror", ["http://mirror.example/debian", "http://mirror.example/debian/"])
def test_all_of_an_image_comes_from_the_mirror_that_is_named(mirror: str, machine: Machine) -> None:
    done = machine.build("--test-keys", "--mirror", mirror)
    assert done.returncode == 1
    assert "a mirror of Debian cannot be reached" in done.stderr
    words, = machine.asked()
    assert sources(words) == [
        "deb http://mirror.example/debian trixie main non-free-firmware",
        "deb http://mirror.example/debian trixie-updates main non-free-firmware",
        "deb http://mirror.example/debian-security trixie-security main non-free-firmware",
        "deb [check-valid-until=no] http://mirror.example/debian forky main",
    ]
    assert "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg" in words
    assert not any("Check-Valid-Until" in word or "llow" in word or "trusted" in word for word in words)


@pytest.mark.parametrize(("mirrors", "ours", "security"), [
    (["http://mirror.here/debian"], "http://mirror.here/debian", "http://mirror.here/debian-security"),
    (["http://other.here/tools", "http://safe.here/debian-security/", "https://mirror.here/debian/"],
     "https://mirror.here/debian", "http://safe.here/debian-security"),
    ([f"http://mirror.here/{number}/debian" for number in range(5000)],
     "http://mirror.here/0/debian", "http://mirror.here/0/debian-security"),
], ids=["one", "others beside it", "very many"])
def test_else_it_comes_from_where_this_machine_has_its_packages(
    mirrors: list[str], ours: str, security: str, machine: Machine,
) -> None:
    (machine.folder / "mirrors").write_text("".join(f"{mirror}\n" for mirror in mirrors))
    machine.build("--test-keys")
    words, = machine.asked()
    assert [line.replace("[check-valid-until=no] ", "").split()[1] for line in sources(words)] == [
        ours, ours, security, ours]


@pytest.mark.parametrize("mirrors", ["", "mirror+file:/etc/apt/mirrors.list\n"], ids=["none", "no address"])
def test_a_machine_that_knows_no_mirror_is_told_to_name_one(mirrors: str, machine: Machine) -> None:
    (machine.folder / "mirrors").write_text(mirrors)
    done = machine.build("--test-keys")
    assert done.returncode == 1
    assert "names no mirror of Debian" in done.stderr
    assert "--mirror URL" in done.stderr
    assert not machine.asked()


def test_the_way_to_a_mirror_is_that_of_this_machine(machine: Machine) -> None:
    said = ['Acquire::http::Proxy "http://proxy.here:3128";', 'Acquire::https::CAInfo "/etc/ssl/ours.pem";',
            'Acquire::http::Proxy::mirror.here "DIRECT";', 'Acquire::Check-Date "false";']
    (machine.folder / "acquire").write_text(ACQUIRE + "".join(f"{line}\n" for line in said))
    machine.build("--test-keys")
    words, = machine.asked()
    assert [word for word in words if word.startswith("--aptopt=Acquire::") and "Languages" not in word
            and "Retries" not in word] == [f"--aptopt={line.removesuffix(';')}" for line in said]


@pytest.mark.parametrize(("mirror", "ours", "security"), [
    ("https://archive.example/debian/@DATE@", "debian/20261115T000000Z", "debian-security/20261115T000000Z"),
    ("https://archive.example/@DATE@/debian", "20261115T000000Z/debian", "20261115T000000Z/debian-security"),
])
def test_a_snapshot_is_of_one_day_in_all_suites(mirror: str, ours: str, security: str, machine: Machine) -> None:
    machine.build("--test-keys", "--snapshot", "20261115T000000Z", "--mirror", mirror)
    words, = machine.asked()
    assert [line.split("https://archive.example/")[1] for line in sources(words)] == [
        f"{ours} trixie main non-free-firmware", f"{ours} trixie-updates main non-free-firmware",
        f"{security} trixie-security main non-free-firmware", f"{ours} forky main"]
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in words, "what was valid then is over now"
    assert "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg" in words, "signed it has to be all the same"


def test_the_debian_of_one_day_is_not_taken_for_that_of_another(machine: Machine) -> None:
    (machine.folder / "reachable").touch()
    days = [{}, {"EDGECALL_MIRROR": "http://mirror.example/debian"}] + [
        {"EDGECALL_MIRROR": f"https://archive.example/debian/{day}", "EDGECALL_SNAPSHOT": day}
        for day in ("20261115T000000Z", "20261116T000000Z")]
    made = [machine.run("base", "uml-amd64", **day).stdout for day in days]
    assert len(set(made)) == len(days) == len(machine.asked())
    assert machine.run("base", "uml-amd64", **days[-1]).stdout == made[-1]
    assert len(machine.asked()) == len(days), "made once"


def aged(machine: Machine, hours: int, **environ: str) -> Path:
    """A Debian of the cache that was made so long ago, and was used just now."""
    (machine.folder / "reachable").touch()
    made = Path(machine.run("base", "uml-amd64", **environ).stdout.strip())
    beginning, _, second = made.stem.rpartition("-")
    old = made.with_name(f"{beginning}-{int(second) - 3600 * hours}.tar")
    made.rename(old)
    made.with_suffix(".packages").rename(old.with_suffix(".packages"))
    for path in (machine.folder / "asked").iterdir():
        path.unlink()
    return old


def test_a_debian_of_the_cache_is_told_with_its_age(machine: Machine) -> None:
    old = aged(machine, 50)
    done = machine.run("base", "uml-amd64")
    assert done.stdout == f"{old}\n"
    assert "50 hours ago (build --fresh makes it anew)" in done.stderr
    assert machine.asked() == []


@pytest.mark.parametrize(("hours", "times"), [(23, 0), (24, 1), (5000, 1)])
@pytest.mark.parametrize("words", [["--keys"], ["--test-keys", "--relock"]], ids=["release", "review"])
def test_a_release_and_its_review_take_no_debian_of_yesterday(
    words: list[str], hours: int, times: int, machine: Machine, real: Path
) -> None:
    """Else a fix that Debian has made would never be in them, and the lock would agree with what is old."""
    old = aged(machine, hours)
    machine.build(*(word for each in words for word in ([each, real] if each == "--keys" else [each])))
    assert len(machine.asked()) == times
    assert old.exists(), "another build may be reading it"
    younger = machine.run("base", "uml-amd64").stdout
    assert (younger != f"{old}\n") == bool(times), "from then on it is the new one"


def test_a_build_for_tests_takes_the_debian_that_is_there_unless_told_otherwise(machine: Machine) -> None:
    aged(machine, 5000)
    machine.build("--test-keys")
    assert machine.asked() == []
    machine.build("--test-keys", "--fresh")
    assert len(machine.asked()) == 1


def test_a_day_of_the_past_does_not_age(machine: Machine, real: Path) -> None:
    day, archive = "20261115T000000Z", "https://archive.example/debian"
    aged(machine, 5000, EDGECALL_MIRROR=f"{archive}/{day}", EDGECALL_SNAPSHOT=day)
    machine.build("--keys", real, "--snapshot", day, "--mirror", f"{archive}/@DATE@")
    assert machine.asked() == []


def test_lists_of_packages_go_with_their_archives(machine: Machine) -> None:
    """Four archives are kept."""
    cache = machine.folder / "home/.cache/edgecall/image"
    for number in range(6):
        (machine.folder / "reachable").touch()
        machine.run("base", "uml-amd64", EDGECALL_MIRROR=f"http://mirror.example/{number}/debian")
    archives = {path.stem for path in cache.glob("base-*.tar")}
    assert len(archives) == 4
    assert {path.stem for path in cache.glob("base-*.packages")} == archives


@pytest.mark.parametrize(("program", "lock", "words"), [
    (["base", "uml-amd64"], "base-uml-amd64", "another build makes the Debian for uml-amd64 now: waiting for it"),
    (["tools"], "tools", "another build makes the Debian with the tools now: waiting for it"),
    (["deb/build", "amd64"], "deb", "another build makes the daemon's package now: waiting for it"),
])
def test_a_build_that_waits_for_another_says_so(
    program: list[str], lock: str, words: str, machine: Machine
) -> None:
    folder = machine.folder / "home/.cache/edgecall/image"
    folder.mkdir(parents=True)
    with (folder / f"{lock}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = machine.start(*program)
        assert waiting.stderr is not None
        assert words in next(line for line in waiting.stderr if line.startswith("== "))
        assert waiting.poll() is None
        fcntl.flock(held, fcntl.LOCK_UN)
        waiting.communicate(timeout=60)
        assert waiting.returncode == 1, "there is no mirror here"


@pytest.mark.parametrize(("words", "code", "told"), [
    (["--help"], 0, "image/base [--max-age HOURS] TARGET"),
    ([], 2, "image/base [--max-age HOURS] TARGET"),
    (["--max-age", "uml-amd64"], 1, "--max-age wants a number of hours"),
    (["--frobnicate", "uml-amd64"], 1, "there is no option '--frobnicate'"),
    (["nonsense"], 1, "there is no target 'nonsense'"),
])
def test_the_words_of_base_are_looked_at(words: list[str], code: int, told: str, machine: Machine) -> None:
    done = machine.run("base", *words)
    assert done.returncode == code
    assert told in done.stderr


@pytest.mark.parametrize(("options", "words"), [
    (["--mirror", "mirror.example/debian"], "'mirror.example/debian' is no address of a mirror"),
    (["--mirror", "http://mirror.example/other"], "no address of a mirror that has its security updates beside it"),
    (["--mirror", "http://mirror.example/debian/@DATE@"], "--snapshot does not say which"),
    (["--snapshot", "20261115T000000Z", "--mirror", "http://mirror.example/debian"], "@DATE@ in it"),
    (["--min-version", "1.5.0", "--version", "1.4.9"], "would refuse its own bundle"),
    (["--min-version", "1.5.0", "--version", "1.5.0-rc.1"], "would refuse its own bundle"),
    (["--locked", "--relock"], "--relock takes any"),
])
def test_options_that_do_not_go_together_are_told_before_anything_is_made(
    options: list[str], words: str, machine: Machine
) -> None:
    done = machine.build("--test-keys", *options)
    assert done.returncode == 1
    assert words in done.stderr
    assert machine.asked() == []
    assert list((machine.folder / "work").iterdir()) == list((machine.folder / "home").iterdir()) == []


# -- Layout ------------------------------------------------------------------------------------------------------------

UNSHARE: Final = r"""#!/bin/bash
while [ "$1" != sh ]; do shift; done
work=$6 image=$7
shift 7
[ "$1" = python3 ] || { echo "$1" >>"$ASKED/../ran"; exit 1; }
set -- "${@//\/work\//@WORK@}" # first: the checkout may lie in a /work, and what is built in an /image
set -- "${@//\/image\//$image/}"
cd "$work" && exec env PYTHONPATH="$image" "${@//@WORK@/$work/}"
"""
"""A Debian with the tools that has Python alone, on this machine: what is said of /work and /image is so here."""


@pytest.mark.parametrize(("changed", "fault"), [
    ({}, ""),
    ({"boot/config.txt": "arm_64bit = nonsense ((\n"}, "config.txt has 'arm_64bit = nonsense (('"),
    ({"boot/cmdline.txt": "hello world\n"}, "cmdline.txt has no root=PARTUUID=edca1101-@ROOT@"),
    ({"edgecall.toml.example": "this is no TOML\n"}, "edgecall.toml.example: is not TOML"),
])
def test_texts_that_no_device_would_start_by_end_a_layout(
    changed: dict[str, str], fault: str, machine: Machine
) -> None:
    """Before the first file system is made of them."""
    image = machine.folder / "image"
    shutil.copytree(IMAGE, image)
    shutil.copy(IMAGE.parent / "pyproject.toml", machine.folder)
    for name, text in changed.items():
        (image / name).write_text(text)
    (machine.folder / "reachable").touch()
    unshare = machine.folder / "bin/unshare"
    unshare.write_text(UNSHARE)
    unshare.chmod(0o755)
    done = machine.run(image / "build", "pi", "--layout")
    assert done.returncode == 1, "there is no mkfs"
    assert fault in done.stderr
    assert ("a device would not start by these files" in done.stderr) == bool(fault)
    assert (machine.folder / "ran").exists() == (not fault)


# -- Releases ----------------------------------------------------------------------------------------------------------


def test_a_release_is_built_with_its_keys(machine: Machine, real: Path) -> None:
    """As far as to Debian."""
    done = machine.build("--keys", real, "--version", "1.4.0+build.5", "--min-version", "1.4.0-rc.1")
    assert "a mirror of Debian cannot be reached" in done.stderr
    assert len(machine.asked()) == 1


def refused(machine: Machine, *words: object) -> str:
    done = machine.build(*words)
    assert done.returncode == 1
    assert machine.asked() == []
    assert list((machine.folder / "home").iterdir()) == [], "nothing is made for it"
    return done.stderr


def test_a_release_takes_no_throw_away_authority(machine: Machine, real: Path) -> None:
    """Not among others either: a device trusts each certificate of the file."""
    thrown = made_keys(machine.folder / "thrown", "--test")
    assert "throw-away authority" in refused(machine, "--keys", thrown)
    for name in ("release.key", "release.pem"):
        (thrown / name).write_bytes((real / name).read_bytes())
    (thrown / "ca.pem").write_bytes((real / "ca.pem").read_bytes() + (thrown / "ca.pem").read_bytes())
    assert "throw-away authority" in refused(machine, "--keys", thrown)
    (thrown / "ca.pem").write_text("nothing\n")
    assert "ca.pem" in refused(machine, "--keys", thrown)


def test_a_release_has_one_authority(machine: Machine, real: Path) -> None:
    assert "one authority" in refused(machine, "--keys", real, "--test-keys")


def test_a_release_is_made_of_packages_that_were_reviewed_before(machine: Machine, real: Path) -> None:
    assert "--relock takes any" in refused(machine, "--keys", real, "--relock")


VENDOR = ["--vendor-mirror", "http://127.0.0.1:9/debian", "--vendor-keyring", __file__]
DAY = ["--snapshot", "20261115T000000Z", "--mirror", "http://mirror.example/debian/@DATE@"]


@pytest.mark.parametrize(("target", "words", "rest"), [
    ("pi", [], ["--vendor-mirror", "URL", "--vendor-keyring", "FILE"]),
    ("pi", VENDOR[:2], [*VENDOR[:2], "--vendor-keyring", "FILE"]),
    ("pi", [*VENDOR, *DAY], [*VENDOR, *DAY]),
    ("pi", ["--vendor-mirror", "http://127.0.0.1:9/debian", "--vendor-keyring", "{}/the vendor's keys"],
     ["--vendor-mirror", "http://127.0.0.1:9/debian", "--vendor-keyring", "{}/the vendor's keys"]),
])
def test_what_has_to_come_before_a_release_is_told_as_a_command(
    target: str, words: list[str], rest: list[str], machine: Machine, real: Path
) -> None:
    """With the options that say where packages come from."""
    (machine.folder / "the vendor's keys").touch()
    words, rest = ([word.format(machine.folder) for word in each] for each in (words, rest))
    done = machine.run("build", target, "--keys", real, *words)
    assert done.returncode == 1
    assert f"there is no image/lock/{target}.lock" in done.stderr
    told, = (line for line in done.stderr.splitlines() if "First: " in line)
    assert shlex.split(told)[1:] == ["image/build", target, "--test-keys", "--relock", *rest]


def test_the_command_that_is_told_gets_as_far_as_to_the_vendors_archive(machine: Machine, real: Path) -> None:
    done = machine.run("build", "pi", "--keys", real, *VENDOR)
    told, = (line for line in done.stderr.splitlines() if "First: " in line)
    _, program, *words = shlex.split(told)
    assert program == "image/build"
    again = machine.run("build", *words, "--deb", machine.folder / "some.deb")
    assert "the vendor's archive cannot be reached at http://127.0.0.1:9/debian" in again.stderr


TOOLS: Final = r"""#!/bin/bash
while [ "$1" != sh ]; do shift; done
root=$5 work=$6 image=$7
shift 7
set -- "${@//\/work\//@WORK@}" # as above
set -- "${@/%\/work/@WORK@}"
set -- "${@//\/image\//$image/}"
set -- "${@//@WORK@/$work/}"
cd "$work"
case "$1" in
  python3) PYTHONPATH="$image" exec "$@" ;;
  sh) exec "$@" ;;
  dpkg) cp -r "$ASKED/../daemon/." "$root" ;;
  mke2fs) cp -r "$work/root" "$ASKED/../made" && /usr/sbin/mke2fs -q -t ext4 "$work/root.ext4" 32M >&2 ;;
  debugfs) printf 'mtime: 0x%08x\n' "$SOURCE_DATE_EPOCH" ;;
  e2fsck) ;;
  genimage) cp "$ASKED/../card" "$work/disk.img" ;;
  rauc) [ "$2" = info ] || [ "$3" = info ] || [ "$4" = info ] || : >"$work/new.raucb" ;;
  *) exit 9 ;;
esac
"""
MMDEBSTRAP: Final = """#!/bin/sh
for word; do
  case $word in
    */base.tar) cd "$ASKED/../daemon" && tar -cf "$word" usr/sbin usr/lib/os-release && cp ../packages "${word%/*}" ;;
    */new-*/root) mkdir "$word" ;;
  esac
done
"""
"""A Debian with tools of which Python and those for FAT are this machine's: the others leave what takes their place."""


@pytest.fixture
def whole(machine: Machine) -> Machine:
    """A machine that builds to the end, of a Debian and a daemon's package that hold next to nothing."""
    daemon = {
        "etc/shadow": "root:*:20309::::::\n", "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/debian_version": "13.2\n", "usr/sbin/any": "", "var/lib/any": "", "usr/share/common-licenses/GPL-2": "",
        "etc/systemd/system/multi-user.target.wants/edgecall.service": "", "usr/lib/os-release": "ID=debian\n",
        "usr/lib/edgecall/site-packages/edgecall-1.dist-info/METADATA":
            "Metadata-Version: 2.1\nName: edgecall\nVersion: 1\n",
    }
    for name, text in daemon.items():
        (machine.folder / "daemon" / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.folder / "daemon" / name).write_text(text)
    for name, text in (("unshare", TOOLS), ("mmdebstrap", MMDEBSTRAP)):
        (machine.folder / "bin" / name).write_text(text)
        (machine.folder / "bin" / name).chmod(0o755)
    shutil.copy(IMAGE / "lock/uml-amd64.lock", machine.folder / "packages")
    write_card(machine.folder / "card")
    return machine


SSH_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA desk\n"
FILES: Final = {".img", ".root.ext4", ".boot.vfat", ".lock", ".cdx.json", ".sources.txt", ".licences"}


@pytest.mark.parametrize(("keys", "with_ssh", "name", "bundled"), [
    ("--keys", False, "edgecall-uml-amd64-1.4.0", True),
    ("--test-keys", False, "edgecall-uml-amd64-1.4.0-TEST", True),
    ("--test-keys", True, "edgecall-uml-amd64-1.4.0-DEBUG-SSH-TEST", True),
    ("--keys", True, "edgecall-uml-amd64-1.4.0-DEBUG-SSH", False),
])
def test_an_image_with_ssh_is_named_so_and_is_no_update_of_devices_in_the_field(
    keys: str, with_ssh: bool, name: str, bundled: bool, whole: Machine, real: Path
) -> None:
    """Else whoever can have a device update makes one out of it that lets root log in."""
    (whole.folder / "key.pub").write_text(SSH_KEY)
    words = [keys, *([real] if keys == "--keys" else []), *(["--debug-ssh", "../key.pub"] if with_ssh else [])]
    done = whole.build(*words, "--version", "1.4.0", "--min-version", "1.0.0")
    assert done.returncode == 0, done.stderr
    out = whole.folder / "work/image-out"
    assert done.stdout == f"{out}/{name}.img\n"
    assert {path.name.removeprefix(name) for path in out.iterdir()} == FILES | ({".raucb"} if bundled else set())
    assert ("no bundle: signed with" in done.stderr) == (not bundled)
    sources = (out / f"{name}.sources.txt").read_text().splitlines()
    assert re.fullmatch(r"checkout edgecall 1 ([0-9a-f]{40}(-dirty)?|of no commit)", sources[-1])
    made = whole.folder / "made"
    said = (made / "usr/lib/os-release").read_text().splitlines()
    assert said == ["ID=debian", "IMAGE_ID=edgecall-uml-amd64", "IMAGE_VERSION=1.4.0",
                    *(["VARIANT=DEBUG-SSH"] if with_ssh else [])]
    allowed = made / "root/.ssh/authorized_keys"
    assert (allowed.read_text() if allowed.exists() else "") == (SSH_KEY if with_ssh else "")
    assert (made / "usr/lib/systemd/system/edgecall-debug-ssh.service").exists() == with_ssh


@pytest.mark.parametrize(("name", "text", "fault"), [
    ("etc/machine-id", "5a1e\n", "etc/machine-id names a machine"), ("usr/sbin/sshd", "", "there is a server of SSH"),
])
def test_a_root_that_no_image_may_hold_ends_a_build(name: str, text: str, fault: str, whole: Machine) -> None:
    (whole.folder / "overlay" / name).parent.mkdir(parents=True)
    (whole.folder / "overlay" / name).write_text(text)
    done = whole.build("--test-keys", "--overlay", "../overlay")
    assert done.returncode == 1
    assert fault in done.stderr
    assert "this root is not what an image may hold" in done.stderr
    assert list((whole.folder / "work/image-out").iterdir()) == []


@pytest.mark.parametrize(("changed", "code", "words"), [
    ({"--keys": "nowhere"}, 1, "the file nowhere/release.key cannot be read"),
    ({"--root": "nowhere"}, 1, "the file nowhere cannot be read"),
    ({"--block-size": "16"}, 1, "'16' is no size of blocks"),
    ({"--frobnicate": "x"}, 1, "there is no option '--frobnicate'"),
    ({"--version": ""}, 2, "image/bundle --root FILE"),
])
def test_a_bundle_that_cannot_be_made_is_told_by_what_is_wrong(
    changed: dict[str, str], code: int, words: str, machine: Machine, real: Path
) -> None:
    file = machine.folder / "some.deb"
    options = {"--root": file, "--boot": file, "--compatible": "edgecall-uml-amd64", "--version": "1.0", "--keys": real}
    given = [word for option in (options | changed).items() for word in option]
    done = machine.run("bundle", *given, "out.raucb")
    assert done.returncode == code
    assert words in done.stderr
    assert machine.asked("") == []
    assert list((machine.folder / "work").iterdir()) == []
