"""The provider ``sip``: calls over the telephone network, through accounts at PBXs, providers and trunks.

Targets: ``sip:`` and ``sips:`` addresses, ``tel:`` numbers, which are asked for at the account's own domain, and
meetings with a telephone number, as ``meeting:NAME``. Who
calls is known by what the account's server asserts or, where the account says so, by what is claimed; a caller whom
nobody vouches for is in no address book.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Final

from appliance.clock import Clock, RateLimits
from appliance.errors import Refused
from appliance.media.api import IceServers
from appliance.media.studio import Studio
from appliance.network import Network
from appliance.providers import api
from appliance.providers.sip.account import MOVING_S, Account, Tls
from appliance.providers.sip.agent import ANONYMOUS, ENCRYPTED, Hop
from appliance.providers.sip.body import sdp_of
from appliance.providers.sip.dialin import DialIn
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.incoming import IncomingCall
from appliance.providers.sip.keying import sequence_of, steps_of
from appliance.providers.sip.leg import SipLeg
from appliance.providers.sip.message import Request
from appliance.providers.sip.offer import NotAcceptable, Outline
from appliance.providers.sip.refer import Replaces
from appliance.providers.sip.tolls import TollGuard
from appliance.providers.sip.transaction import ServerInvite
from appliance.providers.sip.transfer import TransferableLeg
from appliance.providers.sip.uri import NameAddr, Uri
from appliance.providers.sip.video_line import Pictures
from appliance.settings import MeetingSettings, SipSettings
from appliance.tasks import Changes
from appliance.vocabulary import END_REASONS, CallKind, Json

__all__ = ["SipProvider"]

log = logging.getLogger(__name__)

CALLS_PER_MINUTE: Final = 30  # of one account: a flood must not ring for hours
LAST_CALLS: Final = "sip.calls"  # what is kept of those of the last hour
MEETING: Final = "meeting"  # scheme of targets
CALLS: Final = 2  # one call, and one that waits or rings, of each account


class SipProvider:
    """A CallProvider (``providers.api``). ``remember``: the value that is kept under a name, made at the first time by
    its second argument; ``keep``: another one from now on. ``troubled`` is told of accounts that are not up, by name,
    at every change; ``refused`` of calls that the guards do not let out, or that somebody stands in for the other side
    of: why, and to whom. ``ice``: servers for paths with DTLS."""

    def __init__(
        self, settings: SipSettings, studio: Studio, clock: Clock, *, name: str, country: str,
        remember: Callable[[str, str], Awaitable[str]], keep: Callable[[str, str], None],
        troubled: Callable[[dict[str, str]], None], refused: Callable[[str, str], None], ice: IceServers,
    ) -> None:
        self._settings = settings
        self._studio = studio
        self._name = name
        self._country = country
        self._remember = remember
        self._troubled = troubled
        self._refused = refused
        self._ice = ice
        self._meetings = {one.name: one for one in settings.meetings}
        self._accounts: list[Account] = []
        self._changes = Changes()  # of the accounts
        self._unusable: dict[str, str] = {}  # accounts that cannot even begin, and why
        self._on_incoming: Callable[[api.IncomingCall], None] | None = None
        self._tolls = TollGuard(settings, number=lambda text: _number(text, country), told=refused,
                                monotonic=clock.monotonic, keep=partial(keep, LAST_CALLS))
        self._limits = RateLimits(CALLS_PER_MINUTE / 60, CALLS_PER_MINUTE, clock.monotonic, most=8)

    # --- CallProvider -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "sip"

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset({"sip", "sips", "tel", *((MEETING,) if self._meetings else ())})

    async def start(self, on_incoming: Callable[[api.IncomingCall], None]) -> None:
        self._on_incoming = on_incoming
        self._tolls.recall(await self._remember(LAST_CALLS, "[]"))
        instance = await self._remember("sip.instance", uuid.uuid4().urn)
        for one in self._settings.accounts:
            contact = await self._remember(f"sip.contact.{one.name}", secrets.token_hex(16))
            try:
                tls = await asyncio.to_thread(Tls.of, one)
            except OSError as error:
                log.warning("account %s is left out: its certificates cannot be used: %s", one.name, error)
                self._unusable[one.name] = f"its certificates cannot be used: {error}"
                continue
            account = Account(one, self._studio, tls, name=self._name, contact_user=contact, instance=instance,
                              encrypt=self._settings.require_encryption, on_invite=self._invited,
                              on_change=self._changed, admit=self._tolls.admit, ice=self._ice,
                              impostor=partial(self._refused, "wrongFingerprint"))
            self._accounts.append(account)
            account.start()
        if self._unusable:
            self._changed()

    async def stop(self) -> None:
        self._on_incoming = None
        await asyncio.gather(*(leg.end(END_REASONS["503/shutdown"]) for leg in self.legs))
        accounts, self._accounts = self._accounts, []
        await asyncio.gather(*(account.stop() for account in accounts))

    def reachable(self, target: api.Target) -> bool | None:
        usable = any(one.up or one.moving for one in self._accounts)
        return None if target.scheme in self.schemes and usable else False

    async def dial(self, target: api.Target, *, call_id: str, caller: api.Peer, media: api.MediaWanted) -> api.Leg:
        await self._settled(emergency=target.emergency)
        if target.scheme == MEETING:
            meeting = self._meetings.get(target.address)
            if meeting is None:
                raise Refused(f"{target.address!r} is no name of [[sip.meetings]].", code=404, sub_code="notFound")
            sound = replace(media, send_video=False, receive_video=False)
            return self._dial_in(self._number_of(meeting, target), target.uri, sound, sequence_of(meeting),
                                 meeting=True)
        if target.digits:
            return self._dial_in(target, target.uri, media, target.digits, meeting=False)
        return self._dial(target, target.uri, media)

    async def _settled(self, *, emergency: bool) -> None:
        """Wait for an account that is on its way to a server, where no other one can be used; an emergency sends all of
        them on their way."""
        def usable() -> bool:
            return any(one.up or (emergency and one.open) for one in self._accounts)

        if emergency and not usable():
            for account in self._accounts:
                account.hurry()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVING_S):
                while not usable() and any(one.moving for one in self._accounts):
                    await self._changes.next()

    def _dial_in(
        self, number: api.Target, uri: str, media: api.MediaWanted, digits: str, *, meeting: bool,
    ) -> DialIn:
        return DialIn(uuid.uuid4().hex, partial(self._dial, number, uri, media), steps_of(digits), meeting=meeting)

    def _number_of(self, meeting: MeetingSettings, target: api.Target) -> api.Target:
        scheme, _, address = meeting.number.partition(":")
        if scheme == "tel":
            address = _number(re.sub(r"[-.() ]", "", address), self._country) or address
        return replace(target, scheme=scheme, address=address)

    def _dial(self, target: api.Target, known_as: str, media: api.MediaWanted) -> TransferableLeg:
        """One call, to whom the address book knows by the URI ``known_as``."""
        uri, account = self._way(target)
        if target.scheme == "tel":  # the telephone network has none, and not every gateway bears to be asked
            media = replace(media, send_video=False, receive_video=False)
        if not target.emergency:
            self._tolls.admit(uri)
        peer = api.Peer(uri.identity, known_as, uri.identity, "pstn", verified=False)
        leg = SipLeg(uuid.uuid4().hex, account, peer, media)
        account.legs.add(leg)
        whole = TransferableLeg(leg, account, called=True)
        leg.dial(uri, emergency=target.emergency, plain=target.plain)
        return whole

    def state(self) -> Json:
        up = any(one.up for one in self._accounts)
        able: Json = {"isPresent": up, "reason": "Capable" if up else "notRegistered"}
        return {"accounts": {one.settings.name: one.document() for one in self._accounts},
                "calls": len(self.legs), "capabilities": dict.fromkeys(sorted(self.schemes), able)}

    # --- calls ------------------------------------------------------------------------------------------------------

    @property
    def legs(self) -> Sequence[SipLeg]:
        return [leg for account in self._accounts for leg in account.legs]

    def _way(self, target: api.Target) -> tuple[Uri, Account]:
        """The address to be asked for, and through which account. Raises Refused."""
        account = self._account_for(target)
        return account.address(target.uri), account

    def _account_for(self, target: api.Target) -> Account:
        """The best one; in an emergency one that the server does not know (any more) will do."""
        domain = target.address.rpartition("@")[2].partition(":")[0].partition(";")[0].lower()
        own = [one for one in self._accounts if one.domain == domain]
        usable = [one for one in (*own, *self._accounts) if one.up]
        if target.emergency and not usable:
            usable = [one for one in (*own, *self._accounts) if one.open]
        if usable:
            return usable[0]
        waiting = {one.settings.name: one.trouble or "not registered yet" for one in self._accounts}
        why = "; ".join(f"{name}: {trouble}" for name, trouble in (self._unusable | waiting).items())
        known = END_REASONS["480/unreachable"]
        raise Refused(f"The telephone network is not reached ({why}).", code=known.code, sub_code=known.sub_code,
                      category=known.category)

    def _invited(self, account: Account, request: Request, transaction: ServerInvite, hop: Hop) -> None:
        agent = account.agent
        if self._on_incoming is None:
            agent.respond(transaction, 503)
            return
        if "replaces" in request.headers:
            self._take_over(account, request, transaction)
            return
        if len(account.legs) >= CALLS or not self._limits.take(account.settings.name):
            agent.respond(transaction, 486)
            return
        if (kinds := self._acceptable(account, request, transaction)) is None:
            return
        leg = self._incoming(account, request, transaction, api.MediaWanted(), shows="video" in kinds)
        whole = TransferableLeg(leg, account, called=False)
        self._on_incoming(api.IncomingCall(str(uuid.uuid4()), whole, CallKind.PSTN, {"account": account.settings.name}))

    def _acceptable(self, account: Account, request: Request, transaction: ServerInvite) -> Set[str] | None:
        """The kinds of media that there are in common, none where nothing is said of them yet; None where it is refused
        before anything rings."""
        offer = sdp_of(request)
        if not offer:
            return frozenset()
        pictures = Pictures() if account.pictures and self._studio.sees else None
        try:
            _, agreed = account.negotiation(Outline.of(offer).carrier.stand_in, pictures).answer(offer)
        except (NotAcceptable, Malformed) as error:
            log.warning("a call is not taken: %s", error)
            account.agent.respond(transaction, 488)
            return None
        return agreed.keys()

    def _incoming(
        self, account: Account, request: Request, transaction: ServerInvite, media: api.MediaWanted, *,
        shows: bool = False,
    ) -> SipLeg:
        call = IncomingCall(account.agent, request, transaction)
        leg = SipLeg(uuid.uuid4().hex, account, self._caller(account, request), media, call=call, shows=shows)
        account.legs.add(leg)
        return leg

    def _take_over(self, account: Account, request: Request, transaction: ServerInvite) -> None:
        """Somebody calls in place of one we talk with, or whom we call (RFC 3891 3)."""
        try:
            (told,) = request.headers.all("replaces")
            replaces = Replaces.parse(told)
        except ValueError:  # several, or Malformed
            account.agent.respond(transaction, 400)
            return
        leg = next((one for one in account.legs if one.call.is_meant(replaces)), None)
        if leg is None:
            account.agent.respond(transaction, 481)
        elif replaces.early_only and not leg.call.is_early:
            account.agent.respond(transaction, 486)
        elif self._acceptable(account, request, transaction) is not None and not leg.taken_over(
                lambda media: self._incoming(account, request, transaction, media)):
            account.agent.respond(transaction, 491)

    def _caller(self, account: Account, request: Request) -> api.Peer:
        """Who it is (decisions K2). What is only claimed is shown, and proves nothing; who does not want to be known
        (RFC 3323) is nobody, whatever the network tells besides."""
        if _hides(request):
            return api.Peer(ANONYMOUS.uri.user, str(ANONYMOUS.uri), ANONYMOUS.display, "pstn", verified=False)
        asserted = _asserted(request)
        who = asserted or request.sender
        proven = account.settings.trust_caller_id or (asserted is not None and account.settings.transport in ENCRYPTED)
        number = _number(who.uri.identity, self._country)
        uri = f"tel:{number}" if number else str(who.uri.bare())
        identity = number or who.uri.identity
        return api.Peer(identity, uri, who.display or identity, "pstn", verified=proven)

    # --- facts ------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._changes.tell()
        self._troubled(self._unusable | {one.settings.name: one.trouble for one in self._accounts if one.trouble})

    def network_changed(self, _before: Network, now: Network) -> None:
        for account in self._accounts:
            account.network_changed(now.addresses)


def _hides(request: Request) -> bool:
    wishes = {one.strip().lower() for value in request.headers.all("privacy") for one in value.split(";")}
    return not wishes.isdisjoint({"id", "user", "header"}) or request.sender.uri.address.endswith(".invalid")


def _asserted(request: Request) -> NameAddr | None:
    """P-Asserted-Identity (RFC 3325), that with a number first."""
    try:
        told = request.addresses("p-asserted-identity")
    except Malformed:
        return None
    return next((one for one in told if one.uri.scheme == "tel"), told[0] if told else None)


def _number(identity: str, country: str) -> str:
    """As E.164; empty where it is no telephone number of the world: an extension, a name."""
    if not identity.lstrip("+").isdigit() or not identity.isascii():
        return ""
    import phonenumbers  # 4 MB that most devices never need

    try:
        parsed = phonenumbers.parse(identity, country or None)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(parsed):
        return ""
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
