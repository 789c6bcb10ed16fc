"""Moments in words, as a list and a conversation show them. All in the zone of the given moments; English."""

from __future__ import annotations

from datetime import date, datetime, timedelta

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def clock(moment: datetime) -> str:
    """The time of day: 09:05."""
    return f"{moment:%H:%M}"


def day(moment: date, today: date) -> str:
    """A day as a heading: Today, Yesterday, Tuesday 3 June, Tuesday 3 June 2025."""
    if moment == today:
        return "Today"
    if moment == today - timedelta(days=1):
        return "Yesterday"
    text = f"{_DAYS[moment.weekday()]} {moment.day} {_MONTHS[moment.month - 1]}"
    return text if moment.year == today.year else f"{text} {moment.year}"


def short(moment: datetime, today: date) -> str:
    """A moment as briefly as may be: 09:05, Yesterday, Tue, 3 Jun, 3 Jun 25."""
    when = moment.date()
    if when >= today:
        return clock(moment)
    if when == today - timedelta(days=1):
        return "Yesterday"
    if when > today - timedelta(days=7):
        return _DAYS[when.weekday()][:3]
    text = f"{when.day} {_MONTHS[when.month - 1][:3]}"
    return text if when.year == today.year else f"{text} {when.year % 100:02}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest fitting unit: just now, 5 min ago, 3 h ago, yesterday, on 3 Jun."""
    minutes = int((now - moment).total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 24 * 60 and moment.date() == now.date():
        return f"{minutes // 60} h ago"
    if moment.date() == now.date() - timedelta(days=1):
        return f"yesterday at {clock(moment)}"
    return f"on {short(moment, now.date())}"
