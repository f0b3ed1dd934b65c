"""Networks: built from the layer rows of conf/model, and analysed from the same rows."""
