"""What is known of the own user's conversations: a fold over the SDK's events, without I/O and without a clock."""

from .chat import Chat
from .fold import Changes, Model
from .receipts import Marks, Progress
from .timeline import Loading, Outgoing, Timeline

__all__ = ["Changes", "Chat", "Loading", "Marks", "Model", "Outgoing", "Progress", "Timeline"]
