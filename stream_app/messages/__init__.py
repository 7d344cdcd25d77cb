"""The texts of the page and of mails in all languages."""
