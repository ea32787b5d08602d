"""The data plane: client and target connections and the exchange between them."""
