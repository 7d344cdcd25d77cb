"""Messages in chats: what they say, their form in each chat, and how they are sent."""
