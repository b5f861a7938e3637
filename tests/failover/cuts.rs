//! A network between server and database that is cut, and a database that hangs.
