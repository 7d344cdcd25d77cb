"""How fast small exports get through: from the request's publication to the announcement of its end."""
