"""An HTTP server in OpenAI's form on one `Batch` for each model: extra `serve`.

`engine` runs the batches in one thread. `requests` says what may be asked, `answers` and `tools` what is
answered: both only turn values into values. `app` and its neighbours put them on the network.
"""
