package weights

// What tests outside the package look into.
var EncodeSafetensors = encodeSafetensors
