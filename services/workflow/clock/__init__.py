"""Legal time: the working calendar, public holidays and due dates. Pure."""
