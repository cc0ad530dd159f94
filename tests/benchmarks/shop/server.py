"""How gunicorn serves the shop; it takes what it knows of these names and skips the others."""

worker_class = "gthread"
workers = 1
threads = 4
keepalive = 100
loglevel = "error"
# Two servers run at a time, and the newer gunicorn would give both the same socket in the home.
control_socket_disable = True
