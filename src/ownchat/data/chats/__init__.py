"""Chats: each reader turns one program's export into turns; :mod:`ownchat.data.talk` makes conversations of them."""
