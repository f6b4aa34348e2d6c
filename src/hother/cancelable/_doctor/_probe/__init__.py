"""What runs in the servers: applications that tell the doctor what happens to them.

* ``_journal`` tells it, ``_witness`` stands around every application and sees how each request ends,
  and takes orders of the doctor's;
* ``_handlers`` is a FastAPI application with a handler for every moment, ``_stacks`` puts the middleware
  around it in several ways, and ``_bare`` does without it what an application can do by itself;
* ``_user`` is the application of a user, with our handlers below its middleware.
"""
