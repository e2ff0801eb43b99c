"""Listening sockets and admission: who gets in at all."""
