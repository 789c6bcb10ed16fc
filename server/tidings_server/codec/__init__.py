"""The codec: between the API's bytes and the server's own objects. Besides `rpc`, nothing else
knows the generated code.
"""
