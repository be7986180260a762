"""From a rendered variant to the next server's answer.

message    the bytes of a mail, and the names a delivery goes by
transport  the seam between the sender and what carries its mail
smtp       the pipelined client;  memory: the same without a network
replies    octets cut into replies;  classify  what a reply means
capture    the server that takes mail instead of the world, until the publication goes live

No SQL, no rendering: it is handed parts that are rendered, addresses that are checked, and functions that store.
"""
