"""The two looks: dark and light."""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

DARK: Final = "tidings-dark"
LIGHT: Final = "tidings-light"

SENDERS: Final = 8
"""How many colours there are for the names of senders."""

THEMES: Final = (
    Theme(
        name=DARK,
        dark=True,
        primary="#6ea8fe",
        secondary="#93a1bd",
        accent="#5fd3bc",
        success="#67c98b",
        warning="#eec06b",
        error="#f2787d",
        foreground="#dfe3ec",
        background="#10131a",
        surface="#151922",
        panel="#1c212d",
        variables={
            "own": "#1f3a63",
            "other": "#222938",
            "chosen": "#34507f",
            "faint": "#7b869c",
            "seen": "#62c6ff",
            "footer-background": "#1c212d",
            "sender-0": "#f2a97e",
            "sender-1": "#7fc8f8",
            "sender-2": "#b5d77a",
            "sender-3": "#d9a5f0",
            "sender-4": "#f0d17a",
            "sender-5": "#7fdcc3",
            "sender-6": "#f39bb8",
            "sender-7": "#a9b4ff",
        },
    ),
    Theme(
        name=LIGHT,
        dark=False,
        primary="#1f5fd0",
        secondary="#55627a",
        accent="#087f6c",
        success="#15803d",
        warning="#975a00",
        error="#c0262f",
        foreground="#1b2130",
        background="#ffffff",
        surface="#f4f6fa",
        panel="#e8ecf3",
        variables={
            "own": "#d3e4ff",
            "other": "#edf0f5",
            "chosen": "#b4cffb",
            "faint": "#6a7487",
            "seen": "#0069d9",
            "footer-background": "#e8ecf3",
            "sender-0": "#a84a0c",
            "sender-1": "#0a66a6",
            "sender-2": "#4a7300",
            "sender-3": "#8a2fb3",
            "sender-4": "#866000",
            "sender-5": "#00765f",
            "sender-6": "#b8245c",
            "sender-7": "#4149c2",
        },
    ),
)
