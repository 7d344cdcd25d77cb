"""Mails: their texts, as plain text and as HTML, and how they are sent."""
