"""The bridge: WebSockets and HTTP for browsers, on the sessions of this process or of servers elsewhere."""
