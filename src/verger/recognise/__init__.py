"""What a photograph shows: discriminants fitted in closed form, answers, measures, a server."""
